"""Checks what this account may do on the topics of a run, only while no run is online.

With an ACL file, Mosquitto grants every SUBSCRIBE and then does not deliver what the account may not read. So
only a delivered message proves a right to read. The messages are empty and not retained: edges and
aggregators ignore them.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from fl_aggregator.tools.doctor.bench import ProbeSession
from fl_aggregator.tools.doctor.findings import Finding
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt.events import MAX_FILTERS
from fl_shared.mqtt.paho.probe import Probe
from fl_shared.mqtt.paho.probe_results import FAILURE, ProbeFailed
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channel, Channels

UNUSED_ROUND: Final = 10**15
"""The number of a round that no run reaches."""


def account_rights(
    bench: ProbeSession, access: BrokerAccess, is_online: bool, channels: Channels = CHANNELS
) -> Finding:
    """Checks whether the account may read and write all that ``channels`` requires of an aggregator or an edge."""
    kit = access.kit
    edge_rows = (
        () if kit is None else [row for row in channels.rows if not set(row.roles).isdisjoint(kit.roles)]
    )
    if kit is not None and "aggregator" not in kit.roles and not edge_rows:
        return Finding(
            "rights",
            "untested",
            f"the kit of {kit.name} is neither an aggregator's nor an edge's",
            "start needs the aggregator's kit",
            essential=False,
        )
    if is_online:
        return Finding(
            "rights", "untested", "a run is online, and its topics are left alone", essential=False
        )
    if kit is not None and edge_rows:
        return _edge_rights(bench, kit.name, edge_rows)
    not_writable, not_readable = _try_topics(bench, channels)
    missing_rights = [
        f"write {_filter(bench, row)}" for row in not_writable if row.sender not in ("edge", "bridge")
    ]
    missing_rights += [f"read {_filter(bench, row)}" for row in not_readable]
    measured = {"forbidden": missing_rights}
    if missing_rights:
        return Finding(
            "rights",
            "missing",
            "this account may not " + ", ".join(missing_rights),
            "it cannot run an aggregator",
            "ACL: use the one that fl-aggregator provision makes",
            measured=measured,
        )
    unverified = [_filter(bench, row) for row in not_writable]
    measured["unproved"] = unverified
    if not unverified:
        open_to_all = access.address.user is None and access.tls is None
        return Finding(
            "rights",
            "ok",
            "all rights of an aggregator and of any edge",
            "anyone who reaches this broker can pose as any client: only for networks that you trust"
            if open_to_all
            else "",
            "fl-aggregator provision makes accounts" if open_to_all else "",
            measured=measured,
        )
    return Finding(
        "rights",
        "ok",
        f"all rights of an aggregator that can be tested: only edges can show that it may read {', '.join(unverified)}",
        measured=measured,
    )


def _edge_rights(bench: ProbeSession, client: str, rows: Sequence[Channel]) -> Finding:
    """Checks what edge ``client`` may write; of what it reads, it can send itself only its presence."""
    presence = t.build(bench.prefix, t.PresenceTopic(client))
    with bench.probe() as subscriber:
        subscriber.subscribe([presence])
        topics = {row: t.build(bench.prefix, _topic_of(row, client)) for row in rows if row.sender == "edge"}
        not_writable = [row for row, topic in topics.items() if not _may_write(bench, topic)]
        # It may be retained as well: its delivery proves the right to read, too.
        hears_itself = bool(subscriber.receive(1, bench.timeout))
    forbidden = [f"write {topics[row]}" for row in not_writable]
    if not hears_itself and f"write {presence}" not in forbidden:
        forbidden.append(f"read {presence}")
    unproved = [t.filter_of(bench.prefix, row.topic, client) for row in rows if row.sender == "aggregator"]
    measured = {"forbidden": forbidden, "unproved": unproved}
    if forbidden:
        return Finding(
            "rights",
            "missing",
            f"edge {client} may not " + ", ".join(forbidden),
            "it cannot take part in a run",
            "ACL: use the one that fl-aggregator provision makes",
            measured=measured,
        )
    return Finding(
        "rights",
        "ok",
        f"edge {client} may write all that it writes; only an aggregator can show that it may read "
        + ", ".join(unproved),
        measured=measured,
    )


def _topic_of(row: Channel, client: str) -> t.Topic:
    """A topic of the row: of this client, and of no round or model that exists."""
    values = {
        "client": client,
        "asker": client,
        "broker": client,
        "digest12": "0" * 12,
        "round": UNUSED_ROUND,
        "index": 0,
    }
    return row.topic(**{name: values[name] for name in t.fields_of(row.topic)})


def topics_to_try(channels: Channels, unknown_client: str) -> dict[Channel, t.Topic]:
    """For each channel that an aggregator reads or writes, a topic that no run uses."""
    return {
        row: _topic_of(row, unknown_client)
        for row in channels.rows
        if row.reads("aggregator") or row.writes("aggregator")
    }


def _try_topics(bench: ProbeSession, channels: Channels) -> tuple[list[Channel], list[Channel]]:
    """The channels that could not be written, and those whose messages did not arrive but should have."""
    topics = {
        row: t.build(bench.prefix, topic)
        for row, topic in topics_to_try(channels, secrets.token_hex(6)).items()
    }
    readable = [row for row in topics if row.reads("aggregator")]
    filters = [name for name, _ in channels.filters(bench.prefix, readable)]
    with bench.probe() as subscriber:
        for start in range(0, len(filters), MAX_FILTERS):
            subscriber.subscribe(filters[start : start + MAX_FILTERS])
        subscriber.subscribe([bench.topic("fence")])
        not_writable, received = [], set()
        for row, topic in topics.items():
            if not _may_write(bench, topic):
                not_writable.append(row)
            elif row in readable:
                # One after another: another check tests how much a subscriber's queue holds.
                received |= _topics_before_fence(bench, subscriber)
        expected = {topics[row] for row in readable if row not in not_writable}
    return not_writable, [row for row in readable if topics[row] in expected - received]


def _may_write(bench: ProbeSession, topic: str) -> bool:
    """Whether the account may write to ``topic``.

    Uses a new connection, since some brokers close it as a refusal.
    """
    try:
        with bench.probe(second=True) as publisher:
            return publisher.publish_and_wait(topic, b"") < FAILURE
    except ProbeFailed:
        return False


def _topics_before_fence(bench: ProbeSession, subscriber: Probe) -> set[str]:
    """The topics of all messages that come before one that ``subscriber`` sends itself now, however long that takes.

    Retained messages count, too: their delivery proves the right to read. Raises `ProbeFailed`.
    """
    fence, received = bench.topic("fence"), set[str]()
    subscriber.publish_and_wait(fence, b"")
    while fence not in received:
        messages = subscriber.receive(1, bench.timeout)
        if not messages:
            raise ProbeFailed(f"a message on {fence} did not arrive within {bench.timeout:g} s")
        received |= {message.topic for message in messages}
    return received


def _filter(bench: ProbeSession, row: Channel) -> str:
    return t.filter_of(bench.prefix, row.topic)
