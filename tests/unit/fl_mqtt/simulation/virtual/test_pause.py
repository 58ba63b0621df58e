"""A pause in virtual time: the run's time stands still, and nothing is lost (protocol, 8.14)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.phases import Collecting, Finished, Selecting
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support.virtual_federation import VALUES, Federation

SETTINGS = Settings(
    task=f"synthetic-{VALUES}", clients=4, rounds=3, holdout=0.0, per_round=4, deadline=60.0, wait=60.0
)
PAUSE = 5000.0
"""Much longer than any wait of the run, and than the times after which edges and aggregator repeat messages."""


def command(federation: Federation, kind: type[m.Pause | m.Resume]) -> None:
    federation.aggregator._receive(t.ControlTopic(), kind(run=federation.record.run), False)


def rounds(federation: Federation) -> list[tuple[Any, ...]]:
    """What happened in each round, and how long it took."""
    lines = list(federation.history())
    return [
        (one["round"], one["outcome"], one["digest"], one["participants"], one["seconds"]) for one in lines
    ]


def finished(federation: Federation) -> list[tuple[Any, ...]]:
    federation.run()
    found = rounds(federation)
    assert isinstance(federation.aggregator.state.phase, Finished)
    federation.close()
    return found


@pytest.mark.parametrize("killed", [False, True], ids=["at once", "killed in the pause"])
def test_a_round_that_is_open_takes_its_updates_and_none_opens_after_it(tmp_path: Path, killed: bool) -> None:
    whole = Federation(tmp_path / "whole", SETTINGS)
    expected = finished(whole)
    federation = Federation(tmp_path / "paused", SETTINGS)
    while not (
        isinstance(federation.aggregator.state.phase, Collecting) and federation.aggregator.state.version
    ):
        federation.run(1)
    assert federation.aggregator.state.phase.round == 2
    command(federation, m.Pause)
    begun = federation.world.now
    if killed:
        federation.restart_aggregator()
    assert federation.aggregator.pauses.reason == "by the operator"
    federation.world.at(begun + PAUSE, lambda: None)
    while federation.world.now < begun + PAUSE:
        federation.run(1)
    phase = federation.aggregator.state.phase
    assert isinstance(phase, Selecting)
    assert (phase.round, federation.aggregator.state.version) == (3, 2), "round 2 was completed"
    assert federation.aggregator._now() == pytest.approx(begun), "time stood still"
    command(federation, m.Resume)
    assert federation.aggregator.pauses.reason is None
    found = finished(federation)
    assert federation.world.now > begun + PAUSE
    assert [one[:-1] for one in found] == [one[:-1] for one in expected], "the same models by the same edges"
    assert sum(sum(one[-1].values()) for one in found) < 60, "no round took the time of the pause"


def test_a_pause_before_the_first_round(tmp_path: Path) -> None:
    """Edges register and load meanwhile, and the wait for them does not pass."""
    federation = Federation(tmp_path / "run", SETTINGS)
    command(federation, m.Pause)
    federation.world.at(PAUSE, lambda: None)
    while federation.world.now < PAUSE:
        federation.run(1)
    state = federation.aggregator.state
    assert (state.begun, len(state.roster.clients)) == (False, 5)
    command(federation, m.Resume)
    assert federation.aggregator.state.begun, "all are there, so it begins at once"
    assert len(finished(federation)) == 3
