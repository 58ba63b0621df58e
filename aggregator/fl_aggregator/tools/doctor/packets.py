"""Checks the limits that CONNACK announces, and whether packets as large as a run's arrive."""

from __future__ import annotations

import os
import time
from typing import Final

from fl_aggregator.tools.doctor.bench import ProbeSession
from fl_aggregator.tools.doctor.findings import Finding, Verdict
from fl_shared.mqtt.events import MAX_MQTT_PACKET
from fl_shared.mqtt.outbox import ACK_WINDOW, Publish
from fl_shared.mqtt.paho.probe_results import ProbeFailed
from fl_shared.protocol import messages as m
from fl_shared.protocol.limits import INLINE_LIMIT, INLINE_OVERHEAD
from fl_shared.system.text import limit_text

CHUNK_PACKET: Final = 2**20 + 2**10
"""Bytes of a packet with a chunk of the default size."""
INLINE_UPDATE_PACKET: Final = INLINE_LIMIT + INLINE_OVERHEAD
"""Bytes of a packet with the largest update that is sent whole."""
MIN_PACKET: Final = 8 * 2**10
"""Bytes of the smallest packet that can hold the announcement of a round of a hundred edges."""
MAX_PACKET_SECONDS: Final = 60.0
"""Seconds that a packet may take. A packet that would take longer is not tried."""
MIN_RATE: Final = 100_000
"""Bytes per second. At a lower rate, chunks time out before they arrive."""
SIZE_REMEDY: Final = "mosquitto.conf: max_packet_size 67108864, no message_size_limit"
WEBSOCKET_REMEDY: Final = "mosquitto.conf: websockets_headers_size 65535"
"""Mosquitto 2.0 sends only this many bytes (by default 4,096) over a WebSocket every 0.1 s (issue 2252)."""


def limits(bench: ProbeSession) -> Finding:
    """Reports the limits that CONNACK announces. Other checks report on retain, wildcards and ``$share``."""
    connack, keepalive = bench.connack, bench.settings.keepalive
    receive_maximum = connack.receive_maximum or 65_535
    qos = 2 if connack.maximum_qos is None else connack.maximum_qos
    phrases = [
        f"packets of {limit_text(connack.maximum_packet_size)}",
        f"{receive_maximum:,} unacknowledged",
        f"QoS {qos}",
        f"{connack.topic_alias_maximum or 0} topic aliases",
        f"keepalive {connack.server_keep_alive or keepalive} s",
    ]
    detail, measured = ", ".join(phrases), {
        "maximum_packet_size": connack.maximum_packet_size,
        "receive_maximum": receive_maximum,
        "maximum_qos": qos,
        "topic_alias_maximum": connack.topic_alias_maximum or 0,
        "server_keep_alive": connack.server_keep_alive,
        "retain_available": connack.retain_available,
        "wildcard_subscriptions": connack.wildcards_available,
        "shared_subscriptions": connack.shared_available,
    }  # fmt: skip
    if qos < 1:
        return Finding(
            "limits",
            "missing",
            detail,
            "all messages of a run have QoS 1",
            "mosquitto.conf: max_qos 1",
            measured=measured,
        )
    effects, remedies = [], []
    if receive_maximum < ACK_WINDOW:
        effects.append(
            f"only {receive_maximum} messages are sent at once instead of {ACK_WINDOW}, which is slower"
        )
        remedies.append(f"max_inflight_messages {ACK_WINDOW}")
    if connack.server_keep_alive is not None and connack.server_keep_alive != keepalive:
        effects.append(
            f"a silent loss is noticed after up to {1.5 * connack.server_keep_alive:g} s, regardless of --keepalive"
        )
        remedies.append("max_keepalive 65535")
    return Finding(
        "limits",
        "limited" if effects else "ok",
        detail,
        "; ".join(effects),
        "mosquitto.conf: " + ", ".join(remedies) if remedies else "",
        measured=measured,
    )


def packets(bench: ProbeSession) -> Finding:
    """Checks packets as large as a chunk of 1 MiB, an update that is sent whole, and the largest packet.

    Sets ``bench.largest_packet`` and ``bench.bytes_per_second``.
    """
    announced_limit = bench.connack.maximum_packet_size
    limit = min(announced_limit or MAX_MQTT_PACKET, m.MAX_PACKET)
    seconds: dict[int, float] = {}
    lost_size, why_lost = None, ""
    for size in sorted(
        {min(limit, candidate) for candidate in (CHUNK_PACKET, INLINE_UPDATE_PACKET, m.MAX_PACKET)}
    ):
        if bench.bytes_per_second is not None and 3 * size / bench.bytes_per_second > MAX_PACKET_SECONDS:
            break
        if why_lost := _try_packet(bench, size, seconds):
            lost_size = size
            break
    if not seconds:
        size = min(limit, CHUNK_PACKET)
        while not seconds and size > MIN_PACKET:
            size //= 2
            _try_packet(bench, size, seconds)
    bench.largest_packet = max(seconds, default=0)
    detail = (
        ", ".join(f"{limit_text(size)} in {duration * 1000:.0f} ms" for size, duration in seconds.items())
        or "none arrived"
    )
    if announced_limit is not None:
        detail += f"; {limit_text(announced_limit)} announced"
    remedy = SIZE_REMEDY
    if bench.bytes_per_second is not None and bench.bytes_per_second < MIN_RATE:
        verdict: Verdict = "missing"
        rate = limit_text(round(bench.bytes_per_second))
        effect = f"{rate} per second: chunks of models and updates time out before they arrive"
        remedy = WEBSOCKET_REMEDY if bench.settings.address.is_websocket else "a faster network"
    else:
        verdict, effect = _size_verdict(bench.largest_packet, lost_size)
    measured = {
        "announced": announced_limit,
        "largest": bench.largest_packet,
        "lost": lost_size,
        "seconds": {str(size): round(took, 4) for size, took in seconds.items()},
    }
    return Finding(
        "packets",
        verdict,
        detail if lost_size is None else f"{detail}; {limit_text(lost_size)} {why_lost}",
        effect,
        remedy if effect else "",
        measured=measured,
    )


def _size_verdict(largest_received: int, lost_size: int | None) -> tuple[Verdict, str]:
    """The verdict and its effect. ``largest_received``: bytes of the largest packet that arrived.

    ``lost_size``: bytes of a packet that did not arrive, although it was within the announced limit; else null.
    """
    if largest_received < MIN_PACKET:
        return "missing", f"a round's announcement needs {limit_text(MIN_PACKET)}"
    if lost_size is not None and lost_size <= INLINE_UPDATE_PACKET:
        return "missing", "the broker does not announce its limit: models and updates never arrive"
    if lost_size is not None:
        return "limited", "keep --chunk at 4 MiB or less, for fl-edge too"
    if largest_received < CHUNK_PACKET:
        effect = (
            f"models and updates travel in chunks of {limit_text(largest_received - 2**10)}: more messages"
        )
        return "limited", effect + (
            ", rounds of hundreds of edges cannot be announced" if largest_received < 2**16 else ""
        )
    return "ok", ""


def _try_packet(bench: ProbeSession, size: int, seconds: dict[int, float]) -> str:
    """Sends a packet of ``size`` bytes to another client. Returns why it was lost, or nothing.

    A small message follows it: if that arrives without it, it is lost. Sets ``seconds[size]`` and
    ``bench.bytes_per_second``.
    """
    topic = bench.topic("large")
    overhead = Publish(topic, bytes(size), 1, retain=False).checked_size() - size
    payload = os.urandom(size - overhead)
    timeout = bench.timeout + min(size / MIN_RATE, MAX_PACKET_SECONDS)
    try:
        with bench.probe() as receiver, bench.probe(second=True) as sender:
            receiver.subscribe([topic])
            started = time.monotonic()
            sender.wait_acknowledged([sender.publish(topic, data) for data in (payload, b"fence")], timeout)
            received = receiver.receive(2, timeout)
    except ProbeFailed as error:
        if bench.is_unreachable:
            raise
        return f"was lost: {error}"
    if not received:
        bench.bytes_per_second = size / timeout
        return f"did not arrive within {timeout:.0f} s"
    if received[0].payload != payload:
        return "did not arrive, but what was sent after it did"
    seconds[size] = received[0].received_at - started
    bench.bytes_per_second = size / seconds[size]
    return ""
