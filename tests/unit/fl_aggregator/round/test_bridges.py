"""Edges behind a bridged broker are absent while its bridge is lost (protocol, 4.12)."""

from __future__ import annotations

from typing import Any

from fl_aggregator.monitoring.views.edge_states import edge_states_of
from tests.support.round_playbook import Playbook, training


def behind_b(**settings: Any) -> Playbook:
    """Edges 0 to 2 are behind B, 3 is behind C, and 4 is on the aggregator's own broker."""
    playbook = training(clients=5, per_round=5, **settings)
    return playbook.play(*(f"load {n} via=B" for n in range(3)), "load 3 via=C")


def present(playbook: Playbook) -> str:
    return "".join(name for name in sorted(playbook.state.roster) if playbook.state.roster[name].present)


def test_a_lost_bridge_takes_the_edges_behind_it_and_only_their_own_word_brings_them_back() -> None:
    playbook = behind_b(grace=30)
    assert present(playbook) == "01234"
    playbook.play("unbridge B")
    assert present(playbook) == "34"
    reasons = {name: reason for name, _, reason in edge_states_of(playbook.state, ())}
    assert reasons == dict.fromkeys("012", "its broker B is not connected") | {"3": None, "4": None}
    playbook.play("rejoin 1", "load 2")
    assert present(playbook) == "1234"
    assert {name: reason for name, _, reason in edge_states_of(playbook.state, ())}["1"] is None


def test_the_round_does_not_wait_for_them() -> None:
    playbook = behind_b(quorum=2, grace=0).play("send 3", "send 4")
    assert playbook.round == 1
    playbook.play("unbridge B")
    assert playbook.round == 2, "all who are present have answered"


def test_an_edge_that_returns_in_the_same_round_takes_part() -> None:
    playbook = behind_b(quorum=2, grace=30).play("send 3", "send 4", "unbridge B", "wait 10")
    for client in "012":
        playbook.play(f"rejoin {client}", f"load {client}", f"send {client} round=1")
    assert playbook.round == 2
    assert set(playbook.state.closed_rounds[-1].accepted) == set("01234")


def test_an_unknown_broker_means_nothing() -> None:
    playbook = behind_b()
    before = playbook.state
    playbook.play("unbridge D")
    assert playbook.state == before


def test_a_broker_of_ours_that_stops_says_nothing_about_the_edges_behind_others() -> None:
    """It publishes the wills of the bridges first; a moment later we lose our own connection."""
    playbook = behind_b(grace=30).play("unbridge B", "disconnect")
    assert present(playbook) == "01234"
    playbook.play("reconnect")
    assert {name: reason for name, _, reason in edge_states_of(playbook.state, ())}["1"] == (
        "has not returned since the aggregator lost its connection"
    )
