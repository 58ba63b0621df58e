"""A fleet sends no more registrations than an aggregator answers before they are repeated."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fl_edge.runtime import registration_window
from fl_edge.session.effects import Send
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support.fuzz.edge_harness import EdgeHarness

MOST = 3


class Registered:
    """A fleet whose registrations are counted, and answered when a test wants it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, edges: int) -> None:
        self.sent: list[str] = []
        self._sessions: dict[str, str] = {}
        monkeypatch.setattr(registration_window.RegistrationWindow.__init__, "__defaults__", (MOST,))
        send = registration_window.RegistrationWindow._send

        def counted(window: registration_window.RegistrationWindow, edge: object, registration: Send) -> None:
            message = registration.message
            assert isinstance(message, m.Registration)
            self.sent.append(message.client)
            self._sessions[message.client] = message.session
            send(window, edge, registration)  # type: ignore[arg-type]

        monkeypatch.setattr(registration_window.RegistrationWindow, "_send", counted)
        self.harness = EdgeHarness(directory, seed=0, predictors=edges - 1)

    def answer(self, client: str) -> None:
        """Admits an edge that only predicts, so that it registers once."""
        reply = m.Admitted(
            run="r", incarnation=1, seq=1, client=client, session=self._sessions[client], task="synthetic-9",
            partition=None, finished_round=None, examples=None,
        )  # fmt: skip
        self.harness.say(t.RepliesTopic(client), reply, client)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registered:
    return Registered(tmp_path, monkeypatch, 8)


def test_the_next_registers_when_one_is_answered(fleet: Registered) -> None:
    assert len(fleet.sent) == MOST
    for number in range(8):
        fleet.answer(fleet.sent[number])
        assert len(fleet.sent) <= number + 1 + MOST
    assert sorted(fleet.sent) == sorted(fleet.harness.edges), "each once"
    fleet.harness.close()


def test_who_waits_for_its_turn_repeats_nothing_until_it_has_had_it(fleet: Registered) -> None:
    waiting = set(fleet.harness.edges) - set(fleet.sent)
    first = {
        edge.client: edge.state.seq for edge in fleet.harness.edges.values() if hasattr(edge.state, "seq")
    }
    for _ in range(20):
        fleet.harness.now += 0.05
        fleet.harness.turn()
    for client in waiting:
        state = fleet.harness.edges[client].state
        assert getattr(state, "seq", None) == first[client], "nothing was made anew"
    fleet.harness.close()


def test_all_have_their_turn_though_nobody_answers(fleet: Registered) -> None:
    for _ in range(100):
        fleet.harness.now += 0.2
        fleet.harness.turn()
    counts = Counter(fleet.sent)
    assert set(counts) == set(fleet.harness.edges)
    assert max(counts.values()) - min(counts.values()) <= 2
    fleet.harness.close()


def test_edges_at_work_go_first(fleet: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, last = fleet.harness.edges
    monkeypatch.setattr(registration_window, "_is_at_work", lambda edge: edge.client == last)
    fleet.harness.lose_broker()
    fleet.sent.clear()
    fleet.harness.find_broker()
    assert last not in fleet.sent
    fleet.answer(fleet.sent[0])
    assert fleet.sent[-1] == last
    fleet.harness.close()


def test_fewer_are_sent_at_once_when_answers_take_long(
    fleet: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration_window, "LEAST_UNANSWERED", 1)
    for _ in range(20):
        fleet.harness.now += 0.2
        fleet.harness.turn()
    window = fleet.harness.runtime._registrations
    assert len(window._unanswered) == 1
    fleet.answer(next(iter(window._unanswered)))
    assert len(window._unanswered) == 2
    fleet.harness.close()


def test_an_edge_whose_connection_is_lost_leaves_its_turn_to_others(fleet: Registered) -> None:
    fleet.harness.lose_broker()
    fleet.sent.clear()
    fleet.harness.find_broker()
    assert len(fleet.sent) == MOST
    for number in range(8):
        fleet.answer(fleet.sent[number])
    assert sorted(fleet.sent) == sorted(fleet.harness.edges)
    fleet.harness.close()


def test_a_registration_that_has_waited_is_repeated_a_second_after_it_left(fleet: Registered) -> None:
    window = fleet.harness.runtime._registrations
    waiting = [edge for edge in fleet.harness.edges.values() if window.is_queued(edge)]
    assert len(waiting) == 5
    fleet.harness.now += 0.9
    fleet.answer(fleet.sent[0])
    [left] = [edge for edge in waiting if not window.is_queued(edge)]
    assert left.scheduled is not None
    assert left.scheduled >= fleet.harness.now + 0.99
    fleet.harness.close()


def test_a_network_event_that_is_no_answer_settles_nothing(fleet: Registered) -> None:
    client = fleet.sent[0]
    fleet.harness.runtime._enqueue(client, mqtt.Received("fl/none", b"x", False, 1))
    fleet.harness.turn()
    assert len(fleet.sent) == MOST
    fleet.harness.close()
