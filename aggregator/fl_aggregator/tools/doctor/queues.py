"""Checks how many messages the broker queues: bursts for a subscriber that is slow to acknowledge."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from fl_aggregator.tools.doctor.bench import (
    PROBE_WINDOW,
    ProbeSession,
    receive_until_fence,
    receive_until_idle,
    seconds_since,
)
from fl_aggregator.tools.doctor.findings import Finding
from fl_shared.mqtt.paho.probe import Probe
from fl_shared.mqtt.paho.probe_results import FAILURE, ProbeFailed
from fl_shared.system.text import limit_text

MAX_BURSTS_SECONDS: Final = 60.0
"""Seconds that all bursts together may take."""
MAX_BURSTS: Final = 100
MAX_LOSSY_BURSTS: Final = 3
LARGE_CHUNK: Final = 2**18
"""Bytes of a large chunk: 64 of them are the 16 MiB that are granted at once (protocol, 6.2)."""
BACKLOG_CHUNKS: Final = 8
"""Number of a model's retained chunks that an edge requests at once."""
BACKLOG_CHUNK: Final = 2**16
QUEUE_REMEDY: Final = "mosquitto.conf: max_queued_messages 1000 (or more), max_queued_bytes 0"


def bursts(bench: ProbeSession) -> Finding:
    """Sends as many chunks as are granted at once to a subscriber that acknowledges them only at the end.

    If none get through, or the broker disconnects it, it acknowledges each at once, as our programs do.
    """
    try:
        finding = _bursts(bench, hold_acks=True)
    except ProbeFailed as error:
        finding = Finding("bursts", "missing", str(error), "uploads do not get through")
    if finding.verdict != "missing" or bench.is_unreachable:
        return finding
    prompt = _bursts(bench, hold_acks=False)
    if prompt.verdict == "missing":
        return prompt
    return replace(
        prompt,
        verdict="limited",
        detail=f"{prompt.detail} if each is acknowledged at once; otherwise {finding.detail}",
        effect=prompt.effect
        or "an aggregator that is busy for a while loses chunks, and requests them again after 5 s",
    )


def _bursts(bench: ProbeSession, *, hold_acks: bool) -> Finding:
    received_counts: list[int] = []
    refused_count = lossy = 0
    started = time.monotonic()
    with bench.probe(hold_acks=hold_acks) as subscriber, bench.probe(second=True) as publisher:
        subscriber.subscribe([bench.topic("burst")])
        while len(received_counts) < MAX_BURSTS and time.monotonic() < started + MAX_BURSTS_SECONDS:
            received, refused = _send_burst(
                bench, subscriber, publisher, len(received_counts), 64, hold_acks=hold_acks
            )
            received_counts.append(received)
            refused_count += refused
            lossy += received < PROBE_WINDOW
            if lossy >= MAX_LOSSY_BURSTS:
                break
        small = seconds_since(started)
        large = None
        size = min(LARGE_CHUNK, (bench.largest_packet or 0) - 2**10)
        if (
            bench.bytes_per_second is not None
            and size >= 64
            and 3 * PROBE_WINDOW * size / bench.bytes_per_second < MAX_BURSTS_SECONDS
        ):
            expected = 3 * PROBE_WINDOW * size / bench.bytes_per_second
            large, refused = _send_burst(
                bench, subscriber, publisher, MAX_BURSTS, size, expected, hold_acks=hold_acks
            )
            refused_count += refused
    measured = {
        "bursts": len(received_counts),
        "sent": PROBE_WINDOW * len(received_counts),
        "came": sum(received_counts),
        "fewest": min(received_counts),
        "seconds": small,
        "large_chunk": size if large is not None else None,
        "large_came": large,
        "refused": refused_count,
    }
    detail = f"{sum(received_counts):,} of {PROBE_WINDOW * len(received_counts):,} arrived in bursts of {PROBE_WINDOW}"
    if large is not None:
        detail += f", {large} of {PROBE_WINDOW} of {limit_text(size)} each"
    lost = lossy > 0 or (large is not None and large < PROBE_WINDOW)
    if not lost:
        return Finding("bursts", "ok", detail, measured=measured)
    suffix = "" if refused_count else " (each was acknowledged)"
    if min(received_counts) == 0 or large == 0:
        return Finding(
            "bursts",
            "missing",
            detail + suffix,
            "uploads do not get through",
            QUEUE_REMEDY,
            measured=measured,
        )
    return Finding(
        "bursts",
        "limited",
        detail + suffix,
        "lost chunks of uploads are requested again after 5 s: rounds are slow",
        QUEUE_REMEDY,
        measured=measured,
    )


def _send_burst(
    bench: ProbeSession,
    subscriber: Probe,
    publisher: Probe,
    number: int,
    size: int,
    expected: float = 0.0,
    *,
    hold_acks: bool,
) -> tuple[int, int]:
    """Sends a burst of messages of ``size`` bytes. Returns how many arrived, and how many the broker refused.

    ``number`` distinguishes the bursts. ``expected``: seconds that the transfer needs.
    """
    payloads = [
        number.to_bytes(4, "big") + index.to_bytes(4, "big") + bytes(size - 8)
        for index in range(PROBE_WINDOW)
    ]
    if hold_acks:
        subscriber.hold_acks()
    mids = [publisher.publish(bench.topic("burst"), payload) for payload in payloads]
    refused = sum(code >= FAILURE for code in publisher.wait_acknowledged(mids, bench.timeout + expected))
    subscriber.acknowledge_all()
    timeout = bench.timeout + expected
    received = receive_until_fence(subscriber, publisher, bench.topic("burst"), PROBE_WINDOW, timeout)
    return len({message.payload for message in received} & set(payloads)), refused


def backlog(bench: ProbeSession) -> Finding:
    """Checks that all retained chunks that one SUBSCRIBE requests arrive at a slow subscriber."""
    if not bench.connack.retain_available:
        return Finding("model windows", "untested", "they need retain", essential=False)
    size = max(16, min(BACKLOG_CHUNK, (bench.largest_packet or BACKLOG_CHUNK) - 2**10))
    idle_timeout = bench.idle_timeout + (
        0.0 if bench.bytes_per_second is None else 2 * BACKLOG_CHUNKS * size / bench.bytes_per_second
    )
    suffixes = [f"chunk{number}" for number in range(BACKLOG_CHUNKS)]
    with bench.probe() as publisher:
        for suffix in suffixes:
            bench.retain(publisher, suffix, bytes(size))
        with bench.probe(second=True, hold_acks=True) as subscriber:
            subscriber.subscribe([bench.topic("fence")])
            codes = subscriber.subscribe([bench.topic(leaf) for leaf in suffixes])
            received = receive_until_idle(subscriber, BACKLOG_CHUNKS, idle_timeout)
            subscriber.acknowledge_all()
            missing = BACKLOG_CHUNKS - len(received)
            received += receive_until_fence(
                subscriber, publisher, bench.topic("fence"), missing, bench.timeout
            )
            # Some brokers send retained messages on the side, where others overtake them.
            received += receive_until_idle(subscriber, BACKLOG_CHUNKS - len(received), max(1.0, idle_timeout))
    received_count = len({message.topic for message in received})
    measured = {"asked": BACKLOG_CHUNKS, "came": received_count}
    detail = f"{received_count} of {BACKLOG_CHUNKS} retained chunks arrived after one SUBSCRIBE"
    if len(codes) != BACKLOG_CHUNKS or max(codes) >= FAILURE:
        return Finding(
            "model windows",
            "missing",
            f"{BACKLOG_CHUNKS} filters in one SUBSCRIBE are refused",
            measured=measured,
        )
    if received_count == BACKLOG_CHUNKS:
        return Finding("model windows", "ok", detail, measured=measured)
    return Finding(
        "model windows",
        "limited" if received_count else "missing",
        detail,
        "edges request the others again, after a time-out each: models load slowly",
        QUEUE_REMEDY,
        measured=measured,
    )
