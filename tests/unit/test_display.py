"""What a person sees of a run, off a terminal: a line a round, and a table at the end that stays of a size."""

from __future__ import annotations

import io

from rich.console import Console

from fl_aggregator.display import Display, table
from fl_aggregator.effects import WriteHistory
from fl_aggregator.phases import Summary, new_run
from fl_aggregator.settings import Settings
from fl_shared.messages import ModelReference


def summary(number: int) -> Summary:
    missing = {f"edge-{edge}": "offline: for 0.5 s" for edge in range(8)}
    return Summary(
        round=number,
        outcome="committed",
        reason=None,
        model=ModelReference(version=number, digest="a" * 64),
        cohort=("0", *missing),
        participants=("0",),
        missing=missing,
        examples=10,
        metrics={},
        seconds={"collecting": 0.25},
    )


def test_each_round_is_one_line_however_long_and_the_last_hundred_are_remembered() -> None:
    written = io.StringIO()
    display = Display(Console(file=written, width=80))
    state = new_run(Settings(rounds=250))
    assert (display.summaries, display.earlier) == ((), 0)
    for number in range(1, 251):
        display.observe(state, (WriteHistory(summary(number)),), now=float(number))
        assert display.earlier == max(0, number - 100)
    assert [one.round for one in display.summaries] == list(range(151, 251))
    assert table(display.summaries).row_count == 100
    lines = [line for line in written.getvalue().splitlines() if not line.startswith("waiting")]
    assert len(lines) == 250
    assert all("; missing: edge-0 offline" in line and line.endswith("0.5 s") for line in lines)
