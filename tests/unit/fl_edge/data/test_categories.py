from __future__ import annotations

from pathlib import Path

import pytest

from fl_edge.data.columns import Choices
from fl_edge.data.rows import Rows
from fl_edge.data.tables import read_table
from tests.support.tables import write_csv


def warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture, values: list[str], choices: Choices) -> str:
    rows: list[tuple[object, ...]] = [(value, i % 2) for i, value in enumerate(values)]
    write_csv(tmp_path / "site.csv", ("time", "ill"), rows)
    read_table.cache_clear()
    assert Rows(choices, tmp_path).schema.categories == ("time",)
    return "\n".join(record.getMessage() for record in caplog.records if record.levelname == "WARNING")


def test_two_values_in_one_bucket_are_said_as_they_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = warnings(tmp_path, caplog, ["A", "B", "C"] * 20, Choices("ill", buckets=2))
    assert said.startswith(
        "column time: 'A' and 'B' share a bucket of 2: raise buckets, or declare the values: "
    )
    assert said.endswith(
        "--task-option categorical=time:A|B, or leave the column out: --task-option ignore=time"
    )


def test_a_column_of_times_is_better_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times = [f"2026-11-30T08:{minute:02}:00Z" for minute in range(60)]
    assert warnings(tmp_path, caplog, times, Choices("ill")) == (
        "column time: is taken as a category, but most of its values occur only once, as those of a time or a name "
        "do: leave it out: --task-option ignore=time"
    )
    caplog.clear()
    wanted = Choices("ill", categorical=(("time", ()),), buckets=4096)
    assert "leave it out" not in warnings(tmp_path, caplog, times, wanted), "the user wants it"
    assert not warnings(tmp_path, caplog, ["yes", "no", "perhaps"] * 20, Choices("ill"))
