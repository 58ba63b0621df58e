"""When an aggregator asks the broker again whether another one has taken over, without a broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.messaging.publisher import STATUS_INTERVAL
from fl_aggregator.round import events as on
from fl_aggregator.server.fencing import STALL_LIMIT, Fence
from fl_shared.errors import UserError
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import codec
from tests.support.fuzz.aggregator_harness import AggregatorHarness
from tests.support.samples import MESSAGES


@dataclass
class Machine:
    """The machine of an aggregator to which nothing is sent."""

    fence: Fence
    now: float = 1e9
    """Its wall clock."""
    asked: int = 0
    """How often the broker was asked."""

    def wait(self, seconds: float, asleep: float = 0.0) -> int:
        """Lets the loop wait, while the machine sleeps besides; returns how often the broker has been asked so far."""

        def wait(timeout: float) -> None:
            self.now += timeout + asleep

        with patch.object(self.fence._inbox, "get", wait):
            self.fence.get(seconds)
        Fence.check(self.fence)  # the harness leaves it out
        return self.asked

    def confirm(self) -> bool:
        self.asked += 1
        return True


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    harness = AggregatorHarness(tmp_path / "run", seed=1)
    machine = Machine(harness.aggregator._fence)
    monkeypatch.setattr(machine.fence, "confirm", machine.confirm)
    monkeypatch.setattr(time, "time", lambda: machine.now)
    Fence.check(machine.fence)
    machine.asked = 0
    yield machine
    harness.close()


def test_a_wait_until_the_next_status_is_no_stall(machine: Machine) -> None:
    assert machine.wait(STATUS_INTERVAL) == 0
    assert machine.wait(STATUS_INTERVAL, asleep=0.9 * STALL_LIMIT) == 0


def test_a_machine_that_slept_longer_asks_before_it_goes_on(machine: Machine) -> None:
    assert machine.wait(STATUS_INTERVAL, asleep=1.1 * STALL_LIMIT) == 1
    assert machine.wait(0.0, asleep=1.1 * STALL_LIMIT) == 2
    assert machine.wait(STATUS_INTERVAL) == 2


def test_what_a_region_is_told_before_its_aggregator_begins_is_kept(machine: Machine) -> None:
    """A relay that is started again may have to train at once."""
    ended = JobDone(on.OrderEnded(now=0.0, round=1, reason="it was made without this region"))
    inbox = machine.fence._inbox
    inbox.put("control", ended)
    inbox.put("control", mqtt.Subscribed((), ()))
    machine.fence.wait_until_free()
    assert machine.fence.get(0.0) == ("control", ended)


def test_of_who_is_only_heard_by_a_status_it_is_known_that_it_is_alive(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its birth may have come before ours. It reads ours, and then ends or sends its own again."""
    fence, said = machine.fence, list[str]()
    monkeypatch.setattr(fence._connections, "repair", said.append)
    own = fence._scope

    def status(run: str, incarnation: int, *, retain: bool = False) -> mqtt.Received:
        message = MESSAGES["status"][1].model_copy(update={"run": run, "incarnation": incarnation})
        return mqtt.Received("fl/status", codec.encode(message), retain, 1)

    assert fence.hear(status(own.run, own.incarnation)) is None
    assert fence.hear(status("another", 1, retain=True)) is None, "it may be long gone"
    assert said == []
    for run, incarnation in (("another", 1), (own.run, own.incarnation + 1)):
        assert fence.hear(status(run, incarnation)) is not None
        assert said == ["fl/status", "fl/aggregator"]
        said.clear()
    fence._inbox.put("control", status("another", 1))
    with pytest.raises(UserError, match="run another is online under the prefix 'fl'"):
        fence.wait_until_free()
