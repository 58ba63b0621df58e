"""The loop of a process of edges, without a broker."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from fl_edge.runtime.inbox import MAX_INBOX_BYTES
from fl_edge.runtime.schedule import CHECK_INTERVAL
from fl_edge.session.events import ModelAnnounced
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol.topics import ModelTopic
from tests.support.counted_lines import lines_of
from tests.support.fuzz.aggregator_messages import CLIENT
from tests.support.fuzz.edge_harness import EdgeHarness
from tests.support.fuzz.fake_network import FakeConnection
from tests.support.fuzz.mutations import golden


def test_what_the_inbox_dropped_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `selected` may be among it, which the aggregator does not repeat; the broker retains it."""
    subscribed: list[str] = []

    def subscribe(_: FakeConnection, filters: list[tuple[str, int]], **options: bool) -> bool:
        subscribed.extend(name for name, _ in filters)
        return not options

    harness = EdgeHarness(tmp_path, seed=0)
    try:
        monkeypatch.setattr(FakeConnection, "subscribe", subscribe)
        first = mqtt.Received("fl/model", bytes(MAX_INBOX_BYTES), False, 1)
        for received in (first, mqtt.Received("fl/round/1/selected", b"{}", True, 1)):
            harness.runtime._enqueue(CLIENT, received)
        harness.now += 1.0
        harness.turn()
        assert "fl/round/+/selected" in subscribed
        subscribed.clear()
        harness.now += 1.0
        harness.turn()
        assert subscribed == [], "once"
    finally:
        harness.close()


def test_an_edge_without_work_sleeps_until_something_is_due(tmp_path: Path) -> None:
    harness = EdgeHarness(tmp_path, seed=0)
    try:
        runtime = harness.runtime
        runtime._schedule._timers.clear()  # of its registration
        harness.now = runtime._notices.due() - 10
        assert runtime._schedule.seconds_until_due(harness.now) == CHECK_INTERVAL
        harness.now += 9
        assert runtime._schedule.seconds_until_due(harness.now) == 1, "then it says what it waits for"
        for _ in range(2):
            runtime._enqueue(CLIENT, mqtt.Received("fl/model", bytes(MAX_INBOX_BYTES), False, 1))
        harness.now -= 9
        assert runtime._schedule.seconds_until_due(harness.now) == 0, "messages were dropped"
    finally:
        harness.close()


def test_what_the_loop_does_costs_the_same_among_more_edges(tmp_path: Path) -> None:
    """It waits after each event; and a broker that ends takes the connections of all edges."""

    def lines(predictors: int) -> float:
        harness = EdgeHarness(tmp_path / str(predictors), seed=0, predictors=predictors)
        notices, edges = harness.runtime._notices, harness.edges.values()

        def broker_ends() -> None:
            for edge in edges:
                notices.connection_lost(edge, "the end", harness.now)

        try:
            for edge in edges:
                notices.connected(edge)
            return lines_of(partial(harness.runtime._schedule.seconds_until_due, harness.now)) + lines_of(
                broker_ends
            ) / len(edges)
        finally:
            harness.close()

    assert lines(60) <= 1.2 * lines(20)


def test_nothing_is_repeated_while_the_answer_waits_in_the_inbox(tmp_path: Path) -> None:
    """But once all is read that had arrived when it was due, it is, though more keeps coming."""
    harness = EdgeHarness(tmp_path, seed=0)
    runtime, noise = harness.runtime, mqtt.Received("fl/none", b"", False, 1)
    try:
        fired = runtime._schedule._timers[0][0]
        for number in range(3):
            runtime._enqueue(CLIENT, noise)
            harness.now = fired + number
        runtime._schedule._note_read(fired - 1)
        for _ in range(3):
            runtime._enqueue(CLIENT, noise)
            assert runtime._schedule._read_until < fired
            runtime._handle(harness.inbox.get(0))
            runtime._schedule.item_handled()
            runtime._schedule._note_read(harness.now)
        for _ in range(3):
            assert runtime._schedule._read_until < fired
            runtime._handle(harness.inbox.get(0))
            runtime._schedule.item_handled()
            runtime._enqueue(CLIENT, noise)
            runtime._schedule._note_read(harness.now)
        assert runtime._schedule._read_until >= fired
    finally:
        harness.close()


def test_what_all_edges_hear_is_decoded_once(tmp_path: Path) -> None:
    harness = EdgeHarness(tmp_path, seed=0, predictors=3)
    router, heard = harness.runtime._router, golden(CLIENT)
    try:
        [(topic, payload)] = [(one.topic, one.payload) for one in heard if one.topic == "fl/model"]
        received = [mqtt.Received(topic, bytes(bytearray(payload)), True, 1) for _ in harness.edges]
        events = [
            router._decode(edge, ModelTopic(), one, 1.0)
            for edge, one in zip(harness.edges.values(), received, strict=True)
        ]
        assert len({id(event.announced) for event in events if isinstance(event, ModelAnnounced)}) == 1
    finally:
        harness.close()
