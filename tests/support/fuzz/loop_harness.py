"""A real aggregator with a real run directory, whose loop is run one message at a time.

Only three parts are not real: its two connections, which discard what is published; its clock; and its thread for
arithmetic. The seed decides when these two advance, so that a run can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.inbox import TICK, AdmittedMessage
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.state import Run
from fl_aggregator.server import launch, resume
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.network import Network
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from fl_shared.security.verified import decode_verified
from tests.support.fuzz import packets
from tests.support.fuzz.fake_network import FakeNetwork
from tests.support.fuzz.mutations import Mutator
from tests.support.fuzz.stepped import SteppedAggregator, SteppedExecutor

PATIENCE: Final = 20.0
"""Seconds of run time within which an awaited thing must happen, if nothing else does."""


class LoopHarness:
    """An aggregator of a run with ``settings``, without edges. ``hear`` is given what it publishes."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.settings = settings
        self.mutator = Mutator(random.Random(settings.seed))
        self.rng = self.mutator.rng
        new = launch.new(self.settings, directory)
        run = self.rng.randbytes(6).hex()
        self.launch = replace(new, record=new.record.model_copy(update={"run": run}))
        broker = BrokerAccess(BrokerAddress.parse("mqtt://127.0.0.1"))
        self.aggregator = SteppedAggregator(
            self.launch, broker, observer=lambda _, effects, __: self.see(effects)
        )
        self._arithmetic = SteppedExecutor()
        worker: Any = self.aggregator._worker
        worker._executor.shutdown()
        worker._executor = self._arithmetic
        # All of the noise must get in, however fast it is made: what the rate limiter drops is never read.
        self.aggregator.inbox._admit = lambda received: AdmittedMessage(
            CHANNELS.parse("fl", received.topic), received
        )
        self._seq = 0

    def start(self) -> None:
        """Begins the run."""
        links = self.aggregator._connections
        links._network = cast(Network, FakeNetwork(self._published, self._retained))
        links.connect(1.0)
        self.aggregator._fence.wait_until_free()
        fence: Any = self.aggregator._fence
        fence.check = lambda: None  # the harness's steps may take any time
        links.connect_updates()
        self.turn()
        self.launch.directory.write_run(self.launch.record)
        links.begin_session()
        self.aggregator._runner.handle(on.Started(now=self.aggregator._now()))

    def see(self, effects: tuple[do.Effect, ...]) -> None:
        """Called with effects that have just been performed."""

    def hear(self, topic: t.Topic, message: m.Message) -> None:
        """Called with each message that the aggregator publishes."""

    def _published(self, topic: str, payload: bytes) -> None:
        """Checks that an edge can read what the aggregator publishes."""
        where = CHANNELS.parse("fl", topic)
        assert where is not None, topic
        self.hear(where, codec.decode(where, payload))

    def _retained(self, topic: str, payload: bytes) -> None:
        where = CHANNELS.parse("fl", topic)
        if isinstance(where, t.SelectedTopic | t.UnmaskTopic) and payload:  # what edges work by
            self.hear(where, codec.decode(where, payload))

    @property
    def state(self) -> Run:
        return self.aggregator.state

    def close(self) -> None:
        self.aggregator._worker.close()
        self.aggregator._network.close()
        self.launch.close()

    # --- the loop -----------------------------------------------------------------------------------------

    def take(self, topic: str, payload: bytes | memoryview, *, retain: bool = False) -> None:
        """Handles one message, as from the network thread, with everything that follows from it at once.

        It comes in a packet with any properties, some of which are broken.
        """
        arrived = packets.received(self.rng, topic, payload, retain=retain)
        if arrived is not None:
            self._take(arrived)

    def _take(self, arrived: mqtt.Received) -> None:
        lane: Any = "updates" if arrived.topic.startswith("fl/updates") else "control"
        self.aggregator.inbox.put(lane, arrived)
        self.aggregator.clock += 0.001
        while self.rng.random() < 0.5 and self._arithmetic.step():
            pass
        self.turn()

    def turn(self) -> None:
        while self.aggregator.inbox.queued_items:
            self.aggregator._run_once()

    def turn_until(self, condition: Callable[[], bool], what: str) -> None:
        """Runs jobs and lets time pass until ``condition`` is true. Raises ``AssertionError`` otherwise."""
        deadline = self.aggregator.clock + PATIENCE
        while not condition():
            if self.aggregator.clock > deadline:
                raise AssertionError(f"{what}: not within {PATIENCE:g} s of run time; {self.state.phase}")
            if self._arithmetic.step():
                self.turn()
            else:
                self.aggregator.clock += TICK
                self.aggregator._run_once()

    def envelope(self) -> dict[str, Any]:
        self._seq += 1
        return {
            "run": self.aggregator.scope.run,
            "incarnation": self.aggregator.scope.incarnation,
            "seq": self._seq,
        }

    def say(self, topic: t.Topic, message: m.Message) -> None:
        self._take(mqtt.Received(t.build("fl", topic), codec.encode(message), False, 1))

    def harmless(self, topic: str, payload: bytes) -> bytes:
        """Takes away what a message could only do with an account that an attacker does not have.

        One in an honest edge's name goes to another run. A birth to which the aggregator would give way is emptied.
        """
        if "honest-" in topic or b"honest-" in payload:
            payload = payload.replace(self.aggregator.scope.run.encode(), b"another-run0")
        if topic == "fl/aggregator":
            rival = decode_verified("fl", mqtt.Received(topic, payload, False, 1), None)
            if isinstance(rival, m.AggregatorPresence) and self.aggregator._fence._is_outranked_by(rival):
                return b""
        return payload

    def replay(self) -> None:
        """Checks that replaying the journal, noise included, restores the state."""
        recovered = resume.replay_journal(self.launch.directory.path, self.launch.record)
        assert recovered.state == self.state, "the journal does not give the state back"
