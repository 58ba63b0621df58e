"""What holds for every scheme, on the tables of four sites."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_edge.data.columns import Choices
from fl_edge.data.partition import Indices, partitions
from fl_edge.data.rows import Rows
from tests.support.builders import partition
from tests.support.tables import write_csv

SITES = {"a": "x" * 8 + "y" * 8, "b": "y" * 24 + "z" * 8, "c": "x" * 40, "d": "x" * 12 + "y" * 8 + "z" * 12}
TOTAL = {"x": 60, "y": 40, "z": 20}
LabelTable = list[tuple[int, ...]]
"""Of each partition, how many examples of x, y and z it has."""


def parts_of(path: Path, scheme: str, seed: int) -> tuple[list[Indices], LabelTable]:
    """The partitions as four edges find them, each on its own."""
    for name, labels in SITES.items():
        write_csv(path / f"{name}.csv", ("n", "kind"), list(enumerate(labels)))
    count = 1 if scheme == "own" else len(SITES)
    parts = [
        Rows(Choices("kind"), path).part(partition(index, scheme=scheme, count=count, seed=seed))
        for index in range(count)
    ]
    labels = "".join(SITES.values())
    counts = [Counter(labels[index] for index in part) for part in parts]
    return parts, [tuple(found[label] for label in TOTAL) for found in counts]


@pytest.mark.parametrize(
    ("scheme", "min_size", "table"),
    [
        ("iid", 30, [(11, 12, 7), (15, 10, 5), (18, 7, 5), (16, 11, 3)]),
        ("shards", 30, [(30, 0, 0), (15, 0, 15), (15, 15, 0), (0, 25, 5)]),
        ("pathological:2", 2, [(0, 13, 6), (30, 0, 7), (30, 13, 0), (0, 14, 7)]),
        ("dirichlet:0.1", 7, [(3, 0, 4), (39, 10, 15), (4, 2, 1), (14, 28, 0)]),
        ("quantity:0.1", 7, [(3, 2, 2), (49, 33, 17), (5, 2, 0), (3, 3, 1)]),
        ("natural", 16, [(8, 8, 0), (0, 24, 8), (40, 0, 0), (12, 8, 12)]),
        ("own", 120, [(60, 40, 20)]),
    ],
)
def test_partitions_are_disjoint_complete_seeded_large_enough_and_have_these_labels(
    tmp_path: Path, scheme: str, min_size: int, table: LabelTable
) -> None:
    parts, labels = parts_of(tmp_path, scheme, seed=0)
    again, _ = parts_of(tmp_path, scheme, seed=0)
    other, _ = parts_of(tmp_path, scheme, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(sum(TOTAL.values())))
    assert list(map(list, parts)) == list(map(list, again))
    assert (list(map(list, parts)) == list(map(list, other))) == (scheme in ("natural", "own"))
    assert min(map(len, parts)) >= min_size
    assert min(map(len, other)) >= min_size
    assert labels == table


@given(
    classes=st.integers(1, 12),
    count=st.integers(1, 30),
    k=st.integers(1, 12),
    seed=st.integers(0, 2**53),
    drawn=st.data(),
)
def test_a_pathological_partition_has_exactly_k_classes_or_is_refused_in_one_line(
    classes: int, count: int, k: int, seed: int, drawn: st.DataObject
) -> None:
    sizes = drawn.draw(st.lists(st.integers(1, 40), min_size=classes, max_size=classes))
    labels = np.repeat(np.arange(classes), sizes)
    most = -(-count * k // classes)
    fits = k <= classes <= count * k and count <= len(labels)
    scheme = partition(scheme=f"pathological:{k}", count=count, seed=seed)
    try:
        found = partitions(labels, scheme)
    except ValueError:
        assert not fits or min(sizes) < most
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            partitions(labels, scheme)
        return
    assert fits
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(len(labels)))
    assert [len(np.unique(labels[part])) for part in found] == [k] * count
    holders = np.array([[label in labels[part] for label in range(classes)] for part in found]).sum(axis=0)
    assert max(holders) - min(holders) <= 1
