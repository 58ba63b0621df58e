"""The run remembers which update of each edge is in a version, if edges keep something for a correction."""

from __future__ import annotations

from typing import Any

import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.round.snapshot import Snapshot
from fl_aggregator.round.state import Counted
from tests.support.round_playbook import Playbook, round_done, training


def scaffold(**settings: Any) -> Playbook:
    """Round 1 is open; all four edges have another number of examples."""
    playbook = Playbook(clients=4, per_round=2, rounds=9, correct=("scaffold",), grace=0.0, **settings)
    playbook.play("start")
    for k in range(4):
        playbook.play(f"join {k} abilities=scaffold", f"load {k} abilities=scaffold examples={10 + k}")
    return playbook.play(f"send {playbook.cohort[0]}")


def averages(playbook: Playbook) -> list[do.Average]:
    return [e for _, effects in playbook.told for e in effects if isinstance(e, do.Average)]


def contribute(playbook: Playbook) -> tuple[str, ...]:
    number, cohort = playbook.round, playbook.cohort
    for name in cohort:
        playbook.play(f"send {name} round={number} examples={10 + int(name)}")
    return cohort


def test_an_average_says_how_many_examples_have_been_heard() -> None:
    playbook = scaffold()
    known: set[str] = set()
    for number in range(1, 9):
        before = sum(10 + int(name) for name in known)
        known |= set(contribute(playbook))
        average = averages(playbook)[-1]
        assert (average.round, average.heard) == (number, (before, sum(10 + int(name) for name in known)))
    assert len(known) > 2


def test_5_16_an_admission_names_the_update_that_is_in_a_version() -> None:
    playbook = scaffold()
    first, second = contribute(playbook)
    absent = next(name for name in "0123" if name not in (first, second))
    assert playbook.state.counted[first] == Counted(round=1, digest=f"{first}@1", examples=10 + int(first))
    for name, expected in ((first, playbook.state.counted[first]), (absent, None)):
        told = len(playbook.told)
        playbook.play(f"rejoin {name} abilities=scaffold")
        [(_, effects)] = playbook.told[told:]
        [body] = [e.body for e in effects if isinstance(e, do.SendReply)]
        assert isinstance(body, do.Admit)
        assert body.counted == expected


def test_what_is_accepted_counts_only_with_its_version() -> None:
    playbook = scaffold(quorum=2)
    one, other = playbook.cohort
    playbook.play(f"send {one} round=1")
    assert playbook.state.counted == {}
    playbook.play(f"fail {other} round=1")
    for name in playbook.collecting.awaited:
        playbook.play(f"fail {name} round=1")
    while playbook.round == 1:
        playbook.play(f"fail {next(iter(playbook.collecting.awaited))} round=1")
    assert playbook.state.counted == {}, "the round was abandoned"


def test_it_survives_a_compacted_journal() -> None:
    playbook = scaffold()
    contribute(playbook)
    fields = Snapshot(playbook.state).fields()
    assert Snapshot.from_fields(fields, playbook.state.settings).state.counted == playbook.state.counted


@pytest.mark.parametrize("correct", [(), ("prox",)])
def test_without_a_correction_nothing_is_remembered(correct: tuple[str, ...]) -> None:
    playbook = Playbook(clients=2, per_round=2, rounds=9, correct=correct).play("start")
    for k in range(2):
        playbook.play(f"join {k} abilities=prox", f"load {k} abilities=prox")
    playbook.play(f"send {playbook.cohort[0]}")
    contribute(playbook)
    assert (len(playbook.state.counted) > 0) == bool(correct)


def test_5_17_what_stays_on_an_edge_counts_with_its_update_as_well() -> None:
    playbook = training(clients=2, per_round=2, keep_local=("batchnorm",))
    round_done(playbook)
    assert {name: one.round for name, one in playbook.state.counted.items()} == {"0": 1, "1": 1}
