"""Where the broker is tried: topics of our own, connections that see every answer, and nothing left behind."""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import replace
from typing import Final

from fl_shared.mqtt.events import ConnectionSettings, Will
from fl_shared.mqtt.paho.probe import Probe
from fl_shared.mqtt.paho.probe_results import FAILURE, ConnackProperties, ProbeFailed, ReceivedMessage
from fl_shared.protocol import topics as t

MIN_TIMEOUT: Final = 5.0
"""Seconds for an answer, at least."""
PROBE_WINDOW: Final = 64
"""QoS 1 messages of ours on their way at once, if the broker allows: chunks that are granted (protocol, 6.2)."""
MIN_IDLE_TIMEOUT: Final = 0.3
"""Seconds after which what has not come is taken not to come, at least."""
MAX_CONNECT_FAILURES: Final = 2


class TestBench:
    """``settings``: how an aggregator would connect. ``latency``: seconds of a round trip, once it was measured.

    ``rate``: bytes a second, once a large packet was sent. At most two probes are open at a time, since a broker that
    binds client ids to accounts lets an aggregator have two.
    """

    def __init__(self, settings: ConnectionSettings, prefix: str) -> None:
        self.settings = settings
        self.prefix = prefix
        self.latency = 0.0
        self.bytes_per_second: float | None = None
        self.largest_packet: int | None = None
        """Bytes of the largest packet that is known to get through."""
        self._failures = 0
        self._connack: ConnackProperties | None = None
        self._test_id = secrets.token_hex(6)
        self._retained: set[str] = set()

    @property
    def timeout(self) -> float:
        return MIN_TIMEOUT + 20 * self.latency

    @property
    def idle_timeout(self) -> float:
        return MIN_IDLE_TIMEOUT + 10 * self.latency

    @property
    def connack(self) -> ConnackProperties:
        """What the broker says of itself, once it was greeted."""
        assert self._connack is not None
        return self._connack

    def read_connack(self) -> None:
        """Comes before all else. Raises `ProbeFailed`."""
        with self.probe() as probe:
            self._connack = probe.connack

    def topic(self, leaf: str) -> str:
        """One of our own topics (or, with ``+`` or ``#``, a filter of them)."""
        return t.doctor_topic(self.prefix, self._test_id, leaf)

    def probe(self, *, second: bool = False, will: Will | None = None, holds_acks: bool = False) -> Probe:
        """Connects. ``second``: beside one that is open. Raises `ProbeFailed`."""
        settings = replace(self.settings, will=will)
        if second and settings.mqtt_client_id is not None:
            settings = replace(settings, mqtt_client_id=settings.mqtt_client_id + "-updates")
        receive_maximum = None if self._connack is None else self._connack.receive_maximum
        window = min(PROBE_WINDOW, receive_maximum or PROBE_WINDOW)
        self._failures += 1
        try:
            probe = Probe(settings, wait=self.timeout, holds_acks=holds_acks, window=window)
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
        """Whether the broker has let us connect so often without an answer that there is no use in going on."""
        return self._failures >= MAX_CONNECT_FAILURES

    def retain(self, probe: Probe, leaf: str, payload: bytes, *, expiry: int | None = None) -> int:
        """Leaves a message there, which `clear_retained` clears; the reason code of its PUBACK."""
        topic = self.topic(leaf)
        self._retained.add(topic)
        return probe.publish_and_wait(topic, payload, retain=True, expiry=expiry)

    def will(self, leaf: str, payload: bytes) -> Will:
        self._retained.add(self.topic(leaf))
        return Will(self.topic(leaf), payload)

    def clear_retained(self) -> None:
        """Clears what was left at the broker, as far as it lets us."""
        if not self._retained:
            return
        with contextlib.suppress(ProbeFailed), self.probe() as probe:
            for topic in sorted(self._retained):
                if probe.publish_and_wait(topic, b"", retain=True) < FAILURE:
                    self._retained.discard(topic)


def receive_until_idle(probe: Probe, count: int, patience: float) -> list[ReceivedMessage]:
    """Messages until there are ``count``, or none has come for ``patience`` seconds."""
    heard: list[ReceivedMessage] = []
    while len(heard) < count:
        more = probe.receive(1, patience)
        if not more:
            break
        heard += more
    return heard


def seconds_since(moment: float) -> float:
    """Rounded to tenths of a millisecond."""
    return round(time.monotonic() - moment, 4)
