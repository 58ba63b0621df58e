"""Connections and topics for checking a broker. The topics belong to the check, and nothing stays on them."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from fl_shared.mqtt.events import ConnectionSettings, Will
from fl_shared.mqtt.paho.probe import Probe
from fl_shared.mqtt.paho.probe_results import FAILURE, ConnackProperties, ProbeFailed, ReceivedMessage
from fl_shared.protocol import topics as t

MIN_TIMEOUT: Final = 5.0
"""Seconds to wait for an answer, at least."""
PROBE_WINDOW: Final = 64
"""Unacknowledged QoS 1 messages, if the broker allows: as many as chunks are granted (protocol, 6.2)."""
MIN_IDLE_TIMEOUT: Final = 0.3
"""Seconds, at least, after which a message that has not arrived counts as lost."""
FENCE_INTERVAL: Final = 0.5
"""Seconds without a message after which a fence is sent again."""
MAX_CONNECT_FAILURES: Final = 2
PATIENCE: Final = 4
"""How many times as long the second attempt at a check waits."""


class ProbeSession:
    """Opens connections for the checks, and keeps what earlier checks have measured.

    ``settings``: how an aggregator would connect. ``latency``: seconds of a round trip, once it has been
    measured. ``bytes_per_second``: throughput, once a large packet has been sent. At most two probes are open
    at a time, since a broker that binds client ids to accounts lets an aggregator have two.
    """

    def __init__(self, settings: ConnectionSettings, prefix: str) -> None:
        self.settings = settings
        self.prefix = prefix
        self.latency = 0.0
        self.bytes_per_second: float | None = None
        self.largest_packet: int | None = None
        """Bytes of the largest packet that has arrived; null before `packets` has run."""
        self._failures = 0
        self._patience = 1
        self._connack: ConnackProperties | None = None
        self._test_id = secrets.token_hex(6)
        self._retained: set[str] = set()

    @property
    def timeout(self) -> float:
        """Seconds to wait for an answer: longer if the broker's round trips take long."""
        return self._patience * (MIN_TIMEOUT + 20 * self.latency)

    @property
    def idle_timeout(self) -> float:
        """Seconds after which a message that has not arrived counts as lost."""
        return self._patience * (MIN_IDLE_TIMEOUT + 10 * self.latency)

    @property
    def connack(self) -> ConnackProperties:
        """What the broker's CONNACK announces. Requires `read_connack`."""
        assert self._connack is not None
        return self._connack

    def read_connack(self) -> None:
        """Connects once and keeps the CONNACK. Must be called before all else. Raises `ProbeFailed`."""
        with self.probe() as probe:
            self._connack = probe.connack

    def topic(self, suffix: str) -> str:
        """A topic that only this check uses, or with ``+`` or ``#`` a filter for such topics."""
        return t.doctor_topic(self.prefix, self._test_id, suffix)

    def probe(self, *, second: bool = False, will: Will | None = None, hold_acks: bool = False) -> Probe:
        """Opens a connection. ``second``: true if another one is open. Raises `ProbeFailed`."""
        settings = replace(self.settings, will=will)
        if second and settings.mqtt_client_id is not None:
            settings = replace(settings, mqtt_client_id=settings.mqtt_client_id + "-updates")
        receive_maximum = None if self._connack is None else self._connack.receive_maximum
        window = min(PROBE_WINDOW, receive_maximum or PROBE_WINDOW)
        self._failures += 1
        try:
            probe = Probe(settings, timeout=self.timeout, manual_acks=hold_acks, window=window)
        except OSError as error:
            raise ProbeFailed(f"cannot connect again: {error.strerror or error}") from None
        except ProbeFailed as error:
            if error.code is not None:
                self._failures = 0
            raise
        self._failures = 0
        return probe

    @property
    def is_unreachable(self) -> bool:
        """Whether so many attempts to connect in a row have failed that further checks are useless."""
        return self._failures >= MAX_CONNECT_FAILURES

    @contextlib.contextmanager
    def second_attempt(self) -> Iterator[None]:
        """Makes all waits longer, on new topics, so that nothing late from the first attempt is taken for an answer."""
        self._patience, self._test_id = PATIENCE, secrets.token_hex(6)
        try:
            yield
        finally:
            self._patience = 1

    def adopt_topic(self, topic: str) -> None:
        """Lets `clear_retained` remove what another session's check retains here."""
        self._retained.add(topic)

    def retain(self, probe: Probe, suffix: str, payload: bytes, *, expiry: int | None = None) -> int:
        """Publishes a retained message, which `clear_retained` removes.

        Returns the reason code of its PUBACK.
        """
        topic = self.topic(suffix)
        self._retained.add(topic)
        return probe.publish_and_wait(topic, payload, retain=True, expiry=expiry)

    def will(self, suffix: str, payload: bytes) -> Will:
        """A retained will for a connection, which `clear_retained` removes from the broker."""
        self._retained.add(self.topic(suffix))
        return Will(self.topic(suffix), payload)

    def clear_retained(self) -> None:
        """Removes the retained messages of the check from the broker, as far as the broker allows."""
        if not self._retained:
            return
        with contextlib.suppress(ProbeFailed), self.probe() as probe:
            for topic in sorted(self._retained):
                if probe.publish_and_wait(topic, b"", retain=True) < FAILURE:
                    self._retained.discard(topic)


def receive_until_idle(probe: Probe, count: int, idle_timeout: float) -> list[ReceivedMessage]:
    """Receives messages until there are ``count``, or until none has arrived for ``idle_timeout`` seconds."""
    received: list[ReceivedMessage] = []
    while len(received) < count:
        batch = probe.receive(1, idle_timeout)
        if not batch:
            break
        received += batch
    return received


def receive_until_fence(
    receiver: Probe, sender: Probe, topic: str, count: int, timeout: float
) -> list[ReceivedMessage]:
    """Receives ``count`` messages, or all that come before fences that ``sender`` sends to ``topic`` now.

    It takes as long as the messages take. The broker drops a fence, too, while its queue for ``receiver`` is full, so
    it is sent again when nothing has come for a while. And Mosquitto 2.0.11 lets a message overtake those in its queue,
    if an acknowledgement makes room just as it comes: fewer messages than ``count`` are all only when another fence has
    come alone. If nothing comes for ``timeout`` seconds, what has come by then is returned.
    """
    received: list[ReceivedMessage] = []
    received_before = -1
    waited = 0.0
    while waited < timeout:
        fence = b"fence" + secrets.token_bytes(8)
        sender.publish_and_wait(topic, fence)
        has_come = False
        while not has_come and (batch := receiver.receive(1, FENCE_INTERVAL)):
            waited = 0.0
            received += [message for message in batch if not message.payload.startswith(b"fence")]
            has_come = any(message.payload == fence for message in batch)
        if not has_come:
            waited += FENCE_INTERVAL
        elif len(received) >= count or len(received) == received_before:
            break
        else:
            received_before = len(received)
    return received


def seconds_since(start: float) -> float:
    """Seconds since ``start`` (monotonic), rounded to tenths of a millisecond."""
    return round(time.monotonic() - start, 4)
