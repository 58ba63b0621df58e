from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from fl_edge.data.columns import Choices
from fl_edge.data.rows import Rows
from fl_edge.errors import DataCorruptError, DataMissingError
from fl_shared.protocol.messages import Partition
from tests.support.tables import write_csv


def partition(index: int, count: int, scheme: str) -> Partition:
    return Partition(index=index, count=count, scheme=scheme, seed=0, holdout=0.2)


def sites(tmp_path: Path) -> Path:
    for number, name in enumerate("ab", start=1):
        write_csv(tmp_path / f"{name}.csv", ("x", "y"), [(i, i * number + 0.5) for i in range(10 * number)])
    return tmp_path


def test_natural_parts_are_the_tables_in_the_order_of_their_names(tmp_path: Path) -> None:
    rows = Rows(Choices("y"), sites(tmp_path))
    assert rows.part(partition(0, 2, "natural")).tolist() == list(range(10))
    assert rows.part(partition(1, 2, "natural")).tolist() == list(range(10, 30))
    with pytest.raises(
        DataMissingError, match=r"has 2 tables, but this edge's is number 3 .*: --partition own"
    ):
        rows.part(partition(2, 3, "natural"))


def test_own_is_everything(tmp_path: Path) -> None:
    rows = Rows(Choices("y"), sites(tmp_path))
    assert len(rows.part(partition(3, 4, "own"))) == 30
    parts = [rows.part(partition(index, 4, "iid")) for index in range(4)]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(30))


def test_a_division_by_classes_needs_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dirichlet:0\.1 divides by classes, but the target is a number"):
        Rows(Choices("y"), sites(tmp_path)).part(partition(0, 2, "dirichlet:0.1"))


def test_examples_with_gaps_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write_csv(tmp_path / "a.csv", ("x", "y"), [(1, 0.5), ("", 1.5), (3, ""), ("", 2.5)])
    kept = Rows(Choices("y"), tmp_path)
    assert kept.train[1].tolist() == [0.5, 1.5, 2.5], "only a target must be there"
    dropped = Rows(Choices("y", drop_missing=True), tmp_path)
    assert dropped.train[1].tolist() == [0.5]
    assert f"{tmp_path}/a.csv: left out 3 of 4 examples with gaps: column 'x' has 2" in caplog.messages


def test_no_example_without_gaps_is_an_error(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ("x", "y"), [(1, ""), ("", 1.5), ("", 2.5)])
    with pytest.raises(
        DataCorruptError, match=r"a\.csv: no example is left without the 3 that have gaps: column 'x' has 2"
    ):
        _ = Rows(Choices("y", drop_missing=True), tmp_path).train


def test_the_test_split_is_a_table_of_its_own(tmp_path: Path) -> None:
    rows = Rows(Choices("y"), sites(tmp_path))
    with pytest.raises(DataMissingError, match=r"has no test split, expected test\.csv or test\.parquet"):
        _ = rows.test
    write_csv(tmp_path / "test.csv", ("y", "x"), [(7.5, 1)])
    rows = Rows(Choices("y"), tmp_path)
    assert (rows.test[0].tolist(), rows.test[1].tolist()) == ([[1.0]], [7.5])
    assert len(rows.train[1]) == 30
    write_csv(tmp_path / "alone" / "test.csv", ("y",), [(1,)])
    write_csv(tmp_path / "alone" / "a.csv", ("x", "y"), [(1, 1.5)])
    with pytest.raises(DataCorruptError, match=r"test\.csv: row 1: column 'x' is missing"):
        _ = Rows(Choices("y"), tmp_path / "alone").test


def test_a_directory_with_the_test_split_alone_serves_an_evaluator(tmp_path: Path) -> None:
    write_csv(tmp_path / "test.csv", ("x", "y"), [(1, 1.5), (2, 2.5)])
    rows = Rows(Choices("y"), tmp_path)
    assert len(rows.test[1]) == 2
    with pytest.raises(DataMissingError, match="has no table but the test split"):
        _ = rows.train
