"""The aggregator in virtual time makes one model, wherever it is killed, and whatever the network loses."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.phases import Finished
from fl_aggregator.round.state import PersonalScore
from fl_edge.storage.own_state_files import OwnStateFiles
from fl_mqtt.simulation.virtual.network import Hop
from tests.support.virtual_federation import VALUES, Federation

SETTINGS = Settings(task=f"synthetic-{VALUES}", clients=4, rounds=3, holdout=0.0, per_round=4)


def starts(first: int, end: int, step: int = 1) -> list[Any]:
    """Where series of kills begin: one on every day, the others in the long tests."""
    return [first, *(pytest.param(one, marks=pytest.mark.long) for one in range(first + step, end, step))]


def finished(federation: Federation) -> str:
    federation.run()
    state = federation.aggregator.state
    federation.close()
    assert isinstance(state.phase, Finished), state.phase
    assert state.model is not None
    return state.model.digest


def test_a_run_ends_at_a_time_that_its_devices_make(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", SETTINGS)
    finished(federation)
    training = 3 * (100 * 10 / 1000)
    assert training < federation.world.now < training + 5
    assert len(federation.jobs.trained) == 1 + 3 * 4  # round 0 makes the first weights


@pytest.mark.parametrize("first", starts(0, 20))
def test_killed_at_any_event_and_resumed_it_makes_the_same_model(tmp_path: Path, first: int) -> None:
    whole = Federation(tmp_path / "whole", SETTINGS)
    expected, events = finished(whole), whole.world.events
    assert events > 100
    for cut in range(first, events, 20):
        federation = Federation(tmp_path / str(cut), SETTINGS)
        federation.run(cut)
        if federation.aggregator.state.ended:
            federation.close()
            continue
        federation.restart_aggregator()
        assert finished(federation) == expected, cut


class Unreliable:
    """Loses, doubles and delays messages."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def delays(self, _hop: Hop, /) -> Collection[float]:
        chance = self._rng.random()
        if chance < 0.1:
            return ()
        return (0.0, self._rng.random()) if chance < 0.2 else (self._rng.choice((0.0, 0.0, 0.5)),)


@pytest.mark.parametrize("seed", [0, *(pytest.param(one, marks=pytest.mark.long) for one in range(1, 5))])
def test_what_a_network_loses_doubles_and_reorders_is_made_good(seed: int, tmp_path: Path) -> None:
    expected = finished(Federation(tmp_path / "whole", SETTINGS))
    assert finished(Federation(tmp_path / "run", SETTINGS, faults=Unreliable(seed))) == expected


def test_a_killed_edge_is_started_again_and_takes_part(tmp_path: Path) -> None:
    expected = finished(Federation(tmp_path / "whole", SETTINGS))
    federation = Federation(tmp_path / "run", SETTINGS.model_copy(update={"grace": 60.0}))
    while federation.aggregator.state.version < 1:
        federation.run(1)
    for edge in ("0", "1"):
        federation.edges[edge].kill()
    federation.world.after(10.0, federation.edges["0"].connect)
    federation.world.after(20.0, federation.edges["1"].connect)
    assert finished(federation) == expected
    assert federation.world.now > 20.0


@pytest.mark.parametrize("first", starts(0, 14, 7))
def test_every_edge_makes_a_model_of_its_own_wherever_the_aggregator_or_an_edge_is_killed(
    tmp_path: Path, first: int
) -> None:
    settings = SETTINGS.model_copy(update={"personalize": 20, "grace": 60.0})
    whole = Federation(tmp_path / "whole", settings)
    finished(whole)
    expected = dict.fromkeys("0123", PersonalScore(before=0.5, after=0.25))
    assert whole.aggregator.state.personal == expected
    assert whole.world.now > 3 + 20 * 0.1, "20 epochs take their time"
    for cut in range(whole.world.events - 60 + first, whole.world.events, 14):
        federation = Federation(tmp_path / str(cut), settings)
        federation.run(cut)
        if not federation.aggregator.state.ended:
            kill_both(federation)
            finished(federation)
        assert federation.aggregator.state.personal == expected, cut
        own = OwnStateFiles(tmp_path / str(cut) / "edges" / "0", "0").read()
        assert own.personal is not None
        assert own.personal.round == 3


@pytest.mark.parametrize("first", starts(40, 86, 23))
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_edges_keep_is_what_has_counted_wherever_either_side_is_killed(
    mode: str, tmp_path: Path, first: int
) -> None:
    given = {
        "task": SETTINGS.task,
        "clients": 4,
        "rounds": 6,
        "holdout": 0.0,
        "grace": 60.0,
        "keep_local": ("w",),
    }
    others = {"per_round": 2} if mode == "sync" else {"mode": "async", "buffer": 3, "concurrency": 3}
    settings = Settings.model_validate(given | others)
    whole = Federation(tmp_path / "whole", settings)
    finished(whole)
    for cut in range(first, whole.world.events, 46):
        federation = Federation(tmp_path / str(cut), settings)
        federation.run(cut)
        if not federation.aggregator.state.ended:
            kill_both(federation)
            federation.run()
        end = federation.world.now + 15
        while federation.world.now < end and federation.world.step():
            pass
        counted = federation.aggregator.state.counted
        assert counted
        for name in "0123":
            own = OwnStateFiles(tmp_path / str(cut) / "edges" / name, name).read().current
            kept = None if own is None else (own.round, own.digest)
            assert kept == ((one := counted.get(name)) and (one.round, one.digest)), (cut, name)
        finished(federation)


def kill_both(federation: Federation) -> None:
    """Kills the aggregator, which is resumed at once, and an edge, which comes back after ten seconds."""
    federation.restart_aggregator()
    federation.edges["0"].kill()
    federation.world.after(10.0, federation.edges["0"].connect)
