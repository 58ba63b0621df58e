"""Checks how many messages the broker queues: bursts for a subscriber that is slow to acknowledge."""

from __future__ import annotations

import time
from typing import Final

from fl_aggregator.tools.doctor.bench import PROBE_WINDOW, TestBench, receive_until_idle, seconds_since
from fl_aggregator.tools.doctor.findings import Finding
from fl_shared.mqtt.paho.probe import Probe
from fl_shared.mqtt.paho.probe_results import FAILURE
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


def bursts(bench: TestBench) -> Finding:
    """Sends as many chunks as are granted at once to a subscriber that acknowledges them only at the end."""
    came: list[int] = []
    refusals = 0
    begun = time.monotonic()
    with bench.probe(holds_acks=True) as reader, bench.probe(second=True) as writer:
        reader.subscribe([bench.topic("burst")])
        while len(came) < MAX_BURSTS and time.monotonic() < begun + MAX_BURSTS_SECONDS:
            arrived, refused = _send_burst(bench, reader, writer, len(came), 64)
            came.append(arrived)
            refusals += refused
            if sum(each < PROBE_WINDOW for each in came) >= MAX_LOSSY_BURSTS:
                break
        small = seconds_since(begun)
        large = None
        size = min(LARGE_CHUNK, (bench.largest_packet or 0) - 2**10)
        if (
            bench.bytes_per_second is not None
            and size >= 64
            and 3 * PROBE_WINDOW * size / bench.bytes_per_second < MAX_BURSTS_SECONDS
        ):
            expected = 3 * PROBE_WINDOW * size / bench.bytes_per_second
            large, refused = _send_burst(bench, reader, writer, MAX_BURSTS, size, expected)
            refusals += refused
    measured = {
        "bursts": len(came),
        "sent": PROBE_WINDOW * len(came),
        "came": sum(came),
        "fewest": min(came),
        "seconds": small,
        "large_chunk": size if large is not None else None,
        "large_came": large,
        "refused": refusals,
    }
    detail = f"{sum(came):,} of {PROBE_WINDOW * len(came):,} arrived in bursts of {PROBE_WINDOW}"
    if large is not None:
        detail += f", {large} of {PROBE_WINDOW} of {limit_text(size)} each"
    lost = min(came) < PROBE_WINDOW or (large is not None and large < PROBE_WINDOW)
    if not lost:
        return Finding("bursts", "ok", detail, measured=measured)
    silently = "" if refusals else " (each was acknowledged)"
    if min(came) == 0 or large == 0:
        return Finding(
            "bursts",
            "missing",
            detail + silently,
            "uploads do not get through",
            QUEUE_REMEDY,
            measured=measured,
        )
    return Finding(
        "bursts",
        "limited",
        detail + silently,
        "lost chunks of uploads are requested again after 5 s: rounds are slow",
        QUEUE_REMEDY,
        measured=measured,
    )


def _send_burst(
    bench: TestBench, reader: Probe, writer: Probe, number: int, size: int, expected: float = 0.0
) -> tuple[int, int]:
    """Sends a burst of messages of ``size`` bytes. Returns how many arrived, and how many the broker refused.

    ``number`` distinguishes the bursts. ``expected``: seconds that the transfer needs.
    """
    payloads = [
        number.to_bytes(4, "big") + index.to_bytes(4, "big") + bytes(size - 8)
        for index in range(PROBE_WINDOW)
    ]
    reader.hold_acks()
    mids = [writer.publish(bench.topic("burst"), payload) for payload in payloads]
    refused = sum(code >= FAILURE for code in writer.wait_acknowledged(mids, bench.timeout + expected))
    reader.acknowledge_all()
    heard = receive_until_idle(reader, PROBE_WINDOW - refused, max(1.0, bench.idle_timeout) + expected / 4)
    return len({each.payload for each in heard} & set(payloads)), refused


def backlog(bench: TestBench) -> Finding:
    """Checks that all retained chunks that one SUBSCRIBE requests arrive at a slow subscriber."""
    if not bench.connack.retain_available:
        return Finding("model windows", "untested", "they need retain", essential=False)
    size = max(16, min(BACKLOG_CHUNK, (bench.largest_packet or BACKLOG_CHUNK) - 2**10))
    patience = bench.idle_timeout + (
        0.0 if bench.bytes_per_second is None else 2 * BACKLOG_CHUNKS * size / bench.bytes_per_second
    )
    leaves = [f"chunk{number}" for number in range(BACKLOG_CHUNKS)]
    with bench.probe() as speaker:
        for leaf in leaves:
            bench.retain(speaker, leaf, bytes(size))
        with bench.probe(second=True, holds_acks=True) as reader:
            codes = reader.subscribe([bench.topic(leaf) for leaf in leaves])
            heard = receive_until_idle(reader, BACKLOG_CHUNKS, patience)
            reader.acknowledge_all()
            heard += receive_until_idle(reader, BACKLOG_CHUNKS - len(heard), max(1.0, patience))
    came = len({each.topic for each in heard})
    measured = {"asked": BACKLOG_CHUNKS, "came": came}
    detail = f"{came} of {BACKLOG_CHUNKS} retained chunks arrived after one SUBSCRIBE"
    if len(codes) != BACKLOG_CHUNKS or max(codes) >= FAILURE:
        return Finding(
            "model windows",
            "missing",
            f"{BACKLOG_CHUNKS} filters in one SUBSCRIBE are refused",
            measured=measured,
        )
    if came == BACKLOG_CHUNKS:
        return Finding("model windows", "ok", detail, measured=measured)
    return Finding(
        "model windows",
        "limited" if came else "missing",
        detail,
        "edges request the others again, after a time-out each: models load slowly",
        QUEUE_REMEDY,
        measured=measured,
    )
