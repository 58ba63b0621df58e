"""Waiting for messages behind a fence: no verdict rests on how long a message takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from fl_aggregator.tools.doctor.bench import FENCE_INTERVAL, receive_until_fence
from fl_shared.mqtt.paho.probe import Probe
from fl_shared.mqtt.paho.probe_results import ReceivedMessage


class Link:
    """Both probes. ``behaves`` says what a wait brings, of the fences that were sent; null: nothing in that time."""

    def __init__(self, behaves: Callable[[list[bytes], int], list[bytes] | None]) -> None:
        self.fences: list[bytes] = []
        self.waits = 0
        self._behaves = behaves

    def publish_and_wait(self, _topic: str, payload: bytes) -> int:
        self.fences.append(payload)
        return 0

    def receive(self, _count: int, _timeout: float) -> list[ReceivedMessage]:
        self.waits += 1
        payloads = self._behaves(self.fences, self.waits) or []
        return [ReceivedMessage("burst", one, 1, False, 1, 0.0, None, None, None) for one in payloads]

    def payloads(self, timeout: float, count: int = 2) -> list[bytes]:
        probe = cast(Probe, self)
        return [one.payload for one in receive_until_fence(probe, probe, "burst", count, timeout)]


def test_what_takes_longer_than_any_pause_is_not_lost() -> None:
    link = Link(lambda fences, wait: None if wait < 8 else [b"a", b"b", *fences])
    assert link.payloads(5.0) == [b"a", b"b"]


def test_a_fence_that_was_dropped_is_sent_again() -> None:
    link = Link(lambda fences, wait: [b"a"] if wait == 1 else [fences[-1]] if len(fences) == 3 else None)
    assert link.payloads(5.0, count=1) == [b"a"]
    assert len(link.fences) == 3


def test_what_a_fence_has_overtaken_is_not_lost() -> None:
    link = Link(lambda fences, wait: [b"a", fences[-1]] if wait == 1 else [b"b", fences[-1]])
    assert link.payloads(5.0) == [b"a", b"b"]
    assert len(link.fences) == 2


def test_what_does_not_come_before_a_second_fence_is_lost() -> None:
    link = Link(lambda fences, wait: [b"a", fences[-1]] if wait == 1 else [fences[-1]])
    assert link.payloads(5.0) == [b"a"]
    assert len(link.fences) == 2


def test_where_nothing_comes_the_wait_ends() -> None:
    link = Link(lambda _fences, _wait: None)
    assert link.payloads(5.0) == []
    assert link.waits == 5.0 / FENCE_INTERVAL
