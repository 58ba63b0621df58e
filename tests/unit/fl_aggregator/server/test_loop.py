"""The loop of the aggregator, without a broker: how long it sleeps when nothing comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from fl_aggregator.messaging.inbox import TICK
from fl_aggregator.messaging.publisher import MIN_STATUS_INTERVAL, STATUS_INTERVAL
from fl_aggregator.messaging.retained import REPAIR_INTERVAL
from fl_aggregator.round import events as on
from fl_aggregator.server.aggregator import Aggregator
from fl_shared.mqtt import events as mqtt
from tests.support.fuzz.aggregator_harness import AggregatorHarness
from tests.support.fuzz.fake_network import FakeNetwork


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AggregatorHarness]:
    """An aggregator that has just done all that was due; both of its clocks stand still."""
    harness = AggregatorHarness(tmp_path / "run", seed=1)
    monkeypatch.setattr(time, "monotonic", lambda: 1e6)
    harness.turn()
    harness.aggregator._publish_status(force=True)
    harness.aggregator._run_once()
    yield harness
    harness.close()


def sleep_of(harness: AggregatorHarness) -> float:
    return Aggregator._seconds_until_due(harness.aggregator)


def test_when_nothing_happens_it_sleeps_until_the_next_status(harness: AggregatorHarness) -> None:
    assert sleep_of(harness) == pytest.approx(STATUS_INTERVAL)


def test_it_wakes_when_the_machine_may_change(harness: AggregatorHarness) -> None:
    harness.aggregator.clock = harness.settings.wait - 0.25
    assert sleep_of(harness) == pytest.approx(0.25)


def test_it_wakes_to_publish_a_state_that_has_changed(harness: AggregatorHarness) -> None:
    lost = on.Reconnected(now=harness.aggregator._now())
    harness.register(harness.peers["eve"])
    harness.aggregator._runner.handle(lost)
    assert sleep_of(harness) <= MIN_STATUS_INTERVAL


def test_it_wakes_for_a_repair_that_was_put_off(harness: AggregatorHarness) -> None:
    for _ in range(2):
        harness.aggregator._connections.repair("fl/status")
    assert sleep_of(harness) == pytest.approx(REPAIR_INTERVAL)


def test_it_wakes_when_its_observer_wants_it(harness: AggregatorHarness) -> None:
    harness.aggregator._runner._observer_due = harness.aggregator._now() + 0.125
    assert sleep_of(harness) == pytest.approx(0.125)


def test_dropped_messages_wake_it_once_and_are_counted_soon(harness: AggregatorHarness) -> None:
    """They never come to the loop, so that a flood of them costs nothing."""
    limiter, inbox = harness.aggregator._rate_limiter, harness.aggregator.inbox
    while not limiter.has_throttled:
        limiter.admit(mqtt.Received("fl/register/eve", bytes(10_000), False, 1))
    for _ in range(100):
        limiter.admit(mqtt.Received("fl/register/eve", bytes(10_000), False, 1))
    assert inbox.queued_items == 1
    harness.aggregator._run_once()
    assert sleep_of(harness) <= TICK
    harness.aggregator.clock += TICK
    harness.aggregator._run_once()
    assert harness.aggregator.rejections.total["eve"]["too-many-registrations"] >= 100
    assert not limiter.has_throttled


def test_what_came_before_it_stood_still_waits_until_it_knows_that_it_may_go_on(
    harness: AggregatorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregator, network = harness.aggregator, cast(FakeNetwork, harness.aggregator._connections._network)
    fence, before = aggregator._fence, harness.state
    del fence.check  # the harness has replaced it
    aggregator._connections._new_will()  # the network has noticed first, and connects again
    awake = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: awake)
    harness.register(harness.peers["eve"])
    aggregator.clock += 2 * harness.settings.wait
    aggregator._run_once()
    assert harness.state is before, "neither what was queued nor a deadline changes the run"
    assert sleep_of(harness) == TICK, "it does not spin"

    network.up(*network.opened[0])
    aggregator.clock -= 2 * harness.settings.wait
    harness.turn()
    while fence._held:
        aggregator._run_once()
    assert "eve" in harness.state.roster


def test_a_long_sleep_without_work_is_no_standstill(
    harness: AggregatorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = harness.aggregator._fence
    del fence.check
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(harness.aggregator.inbox, "get", lambda _timeout: None)
    fence.check()
    fence.get(STATUS_INTERVAL)
    now += STATUS_INTERVAL
    fence.check()
    assert not fence.is_unsure
    assert harness.aggregator._connections.may_publish, "nobody was asked"
    now += STATUS_INTERVAL
    monkeypatch.setattr(fence, "confirm", lambda: False)
    fence.check()
    assert fence.is_unsure
