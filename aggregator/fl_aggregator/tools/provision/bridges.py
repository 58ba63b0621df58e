"""The bridge from a Mosquitto to the hub of a star, as lines of ``mosquitto.conf``: what crosses it, and which way.

Updates only go towards the aggregator, so that those of one broker's edges do not reach all other brokers. What is
retained for all goes in both directions: the aggregator then also finds, and clears, what a broker has kept of rounds
that ended while its bridge was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channel, Channels

Direction = Literal["in", "out", "both"]

QUEUE: Final = "max_queued_messages 100000"
"""For all brokers of a star: a bridge that returns gets all retained messages at once."""
RESTART_SECONDS: Final = 2
"""Seconds until a bridge that is lost connects again."""
KEEPALIVE_SECONDS: Final = 10
"""A bridge that has vanished is noticed after at most one and a half times as many seconds."""


def bridge_lines(
    name: str,
    hub: str,
    prefix: str,
    more: Sequence[str] = (),
    *,
    version: str = "mqttv50",
    channels: Channels = CHANNELS,
) -> list[str]:
    """The lines for the broker ``name``. ``hub``: host and port. ``more``: how it proves who it is, and TLS.

    ``version``: of MQTT; others than ``mqttv50`` lose Response Topics (protocol, 7.5).
    """
    return [
        f"connection {name}",
        f"address {hub}",
        f"bridge_protocol_version {version}",
        "cleansession true",
        f"keepalive_interval {KEEPALIVE_SECONDS}",
        f"restart_timeout {RESTART_SECONDS}",
        "notifications true",
        f"notification_topic {t.build(prefix, t.BrokerTopic(name))}",
        *more,
        *(f"topic {pattern} {direction} 1" for pattern, direction in bridged_topics(prefix, channels)),
    ]


def bridged_topics(prefix: str, channels: Channels = CHANNELS) -> list[tuple[str, Direction]]:
    """The topic filters that cross a bridge, and their directions: ``in`` comes from the hub."""
    by_direction: dict[Direction, list[Channel]] = {"both": [], "out": [], "in": []}
    for row in channels.rows:
        if row.sender != "bridge" and not _asks_anyone(row):
            by_direction["out" if row.receivers == ("aggregator",) else "both"].append(row)
    found: list[tuple[str, Direction]] = [
        (pattern, direction)
        for direction, rows in by_direction.items()
        for pattern, _ in channels.filters(prefix, rows)
    ]
    # Each broker deals a request to one of its own predictors, so one that is asked at a bridged broker stays there.
    for row in filter(_asks_anyone, channels.rows):
        found += [(t.build(prefix, row.topic()), "in"), (t.filter_of(prefix, row.topic), "both")]
    return [*found, (t.trials(prefix), "both")]


def bridge_rules(name: str, prefix: str) -> list[tuple[Literal["read", "write", "readwrite"], str]]:
    """What the account of the bridge of broker ``name`` may do at the hub, as access and topic filter."""
    access: dict[Direction, Literal["read", "write", "readwrite"]] = {
        "in": "read", "out": "write", "both": "readwrite",
    }  # fmt: skip
    rules = [(access[direction], pattern) for pattern, direction in bridged_topics(prefix)]
    return [*rules, ("write", t.build(prefix, t.BrokerTopic(name)))]


def _asks_anyone(row: Channel) -> bool:
    return row.sender == "asker"
