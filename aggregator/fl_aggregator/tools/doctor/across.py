"""Checks two brokers against each other (``doctor --also URL``): what crosses from one to the other, and back.

They may be two addresses of a cluster, or brokers with a bridge between them. Each finding is about both directions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fl_aggregator.tools.doctor.bench import ProbeSession, receive_until_idle
from fl_aggregator.tools.doctor.delivery import WITHOUT_SHARED
from fl_aggregator.tools.doctor.findings import Finding, Verdict
from fl_shared.mqtt.paho.probe_results import ReceivedMessage

CROSSINGS: Final = 20
"""Messages that are sent in each direction, and requests that are dealt to a group with a member at each broker."""

CrossCheck = Callable[[ProbeSession, ProbeSession], Finding]


def messages(here: ProbeSession, there: ProbeSession) -> Finding:
    """Checks that messages cross in both directions, each once."""
    counts = []
    for source, target in ((here, there), (there, here)):
        topic = here.topic("crossing")
        with target.probe(second=True) as receiver, source.probe() as sender:
            receiver.subscribe([topic])
            payloads = [number.to_bytes(2, "big") for number in range(CROSSINGS)]
            sender.wait_acknowledged([sender.publish(topic, payload) for payload in payloads])
            received = receiver.receive(CROSSINGS, here.timeout)
            received += receive_until_idle(receiver, 1, here.idle_timeout)
        counts.append(len(received))
    detail = f"{counts[0]} and {counts[1]} of {CROSSINGS} messages arrived at the other broker"
    if min(counts) < CROSSINGS:
        return Finding("across messages", "missing", detail, "edges behind the other broker hear of no run")
    if max(counts) > CROSSINGS:
        return Finding(
            "across messages", "limited", detail, "messages cross twice, which only wastes bandwidth"
        )
    return Finding("across messages", "ok", detail)


def retained(here: ProbeSession, there: ProbeSession) -> Finding:
    """Checks that a retained message is at the other broker for later subscribers, and that clearing it crosses."""
    return _both_ways("across retained", here, there, lambda a, b: _retained(here, a, b, "kept", "kept"))


def wildcards(here: ProbeSession, there: ProbeSession) -> Finding:
    """Checks retained messages of the other broker with ``+``."""
    return _both_ways(
        "across wildcards", here, there, lambda a, b: _retained(here, a, b, "wild", "+", "limited")
    )


def wills(here: ProbeSession, there: ProbeSession) -> Finding:
    """Checks that the will of a client that is cut off arrives at the other broker."""

    def will(source: ProbeSession, target: ProbeSession) -> tuple[Verdict, str]:
        gone = here.will("will", b"gone")
        with target.probe(second=True) as receiver:
            receiver.subscribe([gone.topic])
            source.probe(will=gone).abort()
            if any(each.payload == b"gone" for each in receiver.receive(1, here.timeout)):
                return "ok", "arrives"
        return "limited", "does not arrive: lost edges are noticed only at the round's deadline"

    return _both_ways("across wills", here, there, will)


def shared(here: ProbeSession, there: ProbeSession) -> Finding:
    """Counts the copies of a request whose share group has a member at each broker."""
    if not (here.connack.shared_available and there.connack.shared_available):
        detail = "a broker announces that it has no shared subscriptions"
        return Finding("across shared", "limited", detail, WITHOUT_SHARED)
    topic = here.topic("share")
    with here.probe() as first, there.probe(second=True) as second:
        for member in (first, second):
            member.subscribe([f"$share/doctor/{topic}"])
        first.wait_acknowledged([first.publish(topic, bytes([number])) for number in range(CROSSINGS)])
        received: list[ReceivedMessage] = []
        for member in (first, second):
            received += receive_until_idle(member, CROSSINGS, here.idle_timeout)
    copies = len(received) / CROSSINGS
    detail = f"{len(received)} copies of {CROSSINGS} requests reached a group with a member at each broker"
    if len({each.payload for each in received}) < CROSSINGS:
        return Finding(
            "across shared", "limited", detail, "predictions only at the broker of an edge that predicts"
        )
    if copies > 1:
        effect = "each broker deals a request to an edge of its own: askers take the first answer"
        return Finding("across shared", "limited", detail, effect)
    return Finding("across shared", "ok", detail)


def answers(here: ProbeSession, there: ProbeSession) -> Finding:
    """Checks that a Response Topic reaches an edge at the other broker."""

    def answer(source: ProbeSession, target: ProbeSession) -> tuple[Verdict, str]:
        topic = here.topic("ask-across")
        with target.probe(second=True) as edge, source.probe() as asker:
            edge.subscribe([topic])
            asker.wait_acknowledged(
                [asker.publish(topic, b"?", response_topic=here.topic("answer"), correlation_data=b"1")]
            )
            received = edge.receive(1, here.timeout)
        if received and received[0].response_topic == here.topic("answer"):
            return "ok", "passed on"
        return "limited", f"lost: answers go to {here.prefix}/predictions (a bridge of MQTT 3.1.1?)"

    return _both_ways("across answers", here, there, answer)


CROSS_CHECKS: Final[tuple[CrossCheck, ...]] = (messages, retained, wildcards, wills, shared, answers)
"""The first of them must succeed for the others to mean anything."""


def _both_ways(
    name: str,
    here: ProbeSession,
    there: ProbeSession,
    check: Callable[[ProbeSession, ProbeSession], tuple[Verdict, str]],
) -> Finding:
    """The finding of a check that is made in both directions: the worse verdict, and what was seen."""
    forth, back = check(here, there), check(there, here)
    order: tuple[Verdict, ...] = ("ok", "limited", "missing")
    worse = max(forth[0], back[0], key=order.index)
    said = forth[1] if forth == back else f"to it {forth[1]}; from it {back[1]}"
    return Finding(name, worse, said)


def _retained(
    here: ProbeSession,
    source: ProbeSession,
    target: ProbeSession,
    suffix: str,
    filter_suffix: str,
    verdict: Verdict = "missing",
) -> tuple[Verdict, str]:
    topic = here.topic(suffix)

    def found() -> bool:
        with target.probe(second=True) as later:
            later.subscribe([here.topic(filter_suffix)])
            return any(
                each.topic == topic and each.payload
                for each in receive_until_idle(later, 50, here.idle_timeout)
            )

    def seen_live(payload: bytes) -> bool:
        with target.probe(second=True) as watcher, source.probe() as publisher:
            watcher.subscribe([topic])
            receive_until_idle(watcher, 1, here.idle_timeout)
            source.adopt_topic(topic)
            publisher.publish_and_wait(topic, payload, retain=True)
            return bool(watcher.receive(1, here.timeout))

    if not seen_live(b"kept"):
        return verdict, "a retained message does not arrive"
    is_found = found()
    seen_live(b"")
    if not is_found:
        return (
            verdict,
            "a retained message arrives, but is not kept there: edges that connect later find nothing",
        )
    if found():
        return verdict, "a retained message crosses, but is not cleared there"
    return "ok", "stored there too, and cleared"
