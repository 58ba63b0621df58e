"""Asynchronous runs as a user starts them, over a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import programs

pytestmark = pytest.mark.broker

RUN = (
    "--mode",
    "async",
    "--task",
    "synthetic-50",
    "--clients",
    "6",
    "--concurrency",
    "4",
    "--buffer",
    "3",
    "--rounds",
    "5",
)


@pytest.mark.parametrize("strategy", ["fedadam", pytest.param("median", marks=pytest.mark.long)])
def test_each_version_has_the_updates_of_a_buffer(tmp_path: Path, strategy: str) -> None:
    with programs.simulate(tmp_path, *RUN, "--strategy", strategy) as run:
        run.ends_well()
    lines = programs.history(tmp_path)
    assert [line["version"] for line in lines] == [1, 2, 3, 4, 5]
    for line in lines:
        assert len(set(line["participants"])) == 3
        assert 0 <= line["metrics"]["staleness_mean"] <= line["metrics"]["staleness_max"] <= 10
        assert set(line["seconds"]) >= {"buffering", "aggregating"}
    assert "round 5: version 5 of 5, 3 of " in run.err
    assert not list((tmp_path / "run" / "spool").iterdir())


def test_what_does_not_go_together_ends_with_exit_code_2(tmp_path: Path) -> None:
    with programs.simulate(tmp_path, *RUN, "--quorum", "3") as run:
        assert run.wait() == 2
    assert "--quorum: has no meaning with --mode async: say --buffer and --concurrency instead" in run.err
