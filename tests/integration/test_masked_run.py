"""A masked run with real programs makes the model of the same run without masks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fl_aggregator.monitoring.views.visibility import NOT_CERTIFIED
from tests.support import programs

pytestmark = [pytest.mark.broker, pytest.mark.edge]

RUN = ("--task", "synthetic-200", "--clients", "5", "--per-round", "5", "--rounds", "2", "--fold-bits", "48",
       "--max-examples", "1000", "--max-delta", "10", "--max-buffer", "10", "--seed", "7")  # fmt: skip


def test_the_model_is_that_of_the_plain_run(tmp_path: Path) -> None:
    found = {}
    for name, more in {"plain": (), "masked": ("--masked",)}.items():
        (tmp_path / name).mkdir()
        with programs.simulate(tmp_path / name, *RUN, *more) as run:
            run.ends_well()
            assert [NOT_CERTIFIED in said for said in (run.err, run.out)] == [bool(more)] * 2, (
                "log, last lines"
            )
            assert ("with --max-examples 1000 --max-delta 10 it would be" in run.err) == bool(more)
        assert run.result["masked"] == ({"least": 5, "certified": False} if more else None)
        found[name] = run.result["model_sha256"]
        lines = programs.history(tmp_path / name)
        assert [line["masked"] for line in lines] == [bool(more)] * 2
        assert all(len(line["participants"]) == 5 for line in lines)
    assert found["masked"] == found["plain"]
    events = [
        json.loads(line)["event"] for line in (tmp_path / "masked/run/journal.jsonl").read_text().splitlines()
    ]
    assert events.count("Agreed") == 8, "four of five unmask a sum"
    assert events.count("SharesKept") >= 8
