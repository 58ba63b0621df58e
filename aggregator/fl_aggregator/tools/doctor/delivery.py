"""Checks the delivery of single messages: round trips, retained messages, wildcards, wills, answers."""

from __future__ import annotations

import socket
import statistics
import time
from typing import Final

from fl_aggregator.tools.doctor.bench import ProbeSession, receive_until_idle
from fl_aggregator.tools.doctor.findings import Finding
from fl_shared.mqtt.paho.probe import Probe
from fl_shared.mqtt.paho.probe_results import FAILURE, ProbeFailed, ReceivedMessage

ROUND_TRIPS: Final = 20
SLOW_BROKER_DELAY: Final = 0.03
"""Seconds of a round trip, without the network's, that suggest Nagle's algorithm and delayed ACKs (40 ms)."""
SHARED_REQUESTS: Final = 20
POLL_TIMEOUT: Final = 0.005
EXPIRY_SECONDS: Final = 1
MAX_WILL_DELAY: Final = 5.0
WITHOUT_SHARED: Final = "predictions only from an edge that is named (predict --client)"


def round_trips(bench: ProbeSession) -> Finding:
    """Checks that messages at QoS 1 arrive in both directions, and measures the time of a round trip.

    It is the first check, since all others need messages to arrive. Sets ``bench.latency``.
    """
    request_topic, reply_topic = bench.topic("there"), bench.topic("back")
    with bench.probe() as asker, bench.probe(second=True) as edge:
        refused = (
            max(
                *asker.subscribe([reply_topic]),
                *edge.subscribe([request_topic]),
                asker.publish_and_wait(request_topic, b"first"),
            )
            >= FAILURE
        )
        if refused or not edge.receive(1, bench.timeout):
            return Finding(
                "messages",
                "untested",
                f"this account may not {'use' if refused else 'read'} {bench.topic('#')}",
                "nothing can be tested there",
                f"ACL: topic readwrite {bench.prefix}/doctor/#",
            )
        seconds = []
        for number in range(ROUND_TRIPS):
            started = time.monotonic()
            received = _send_and_receive(asker, edge, request_topic, number, bench.timeout)
            received += _send_and_receive(edge, asker, reply_topic, number, bench.timeout)
            if len(received) < 2:
                return Finding("messages", "missing", f"one of {number + 1} round trips was lost")
            seconds.append(received[-1].received_at - started)
    qos = min(message.qos for message in received)
    bench.latency = statistics.median(seconds)
    network = _connect_seconds(bench)
    measured = {"median_seconds": round(bench.latency, 5), "tcp_connect_seconds": round(network, 5)}
    detail = f"QoS 1 both ways, a round trip takes {bench.latency * 1000:.1f} ms (median of {ROUND_TRIPS})"
    if qos != 1:
        return Finding("messages", "missing", f"delivered at QoS {qos} instead of 1", measured=measured)
    if bench.latency > 4 * network + SLOW_BROKER_DELAY:
        return Finding(
            "messages",
            "limited",
            detail,
            f"the network needs only {network * 1000:.1f} ms for one: the broker waits before it sends",
            "mosquitto.conf: set_tcp_nodelay true",
            measured=measured,
        )
    return Finding("messages", "ok", detail, measured=measured)


def _send_and_receive(
    sender: Probe, receiver: Probe, topic: str, number: int, timeout: float
) -> list[ReceivedMessage]:
    sender.publish(topic, number.to_bytes(4, "big"))
    return receiver.receive(1, timeout)


def _connect_seconds(bench: ProbeSession) -> float:
    """Seconds of a round trip of the network alone: the shortest of three TCP handshakes."""
    address = bench.settings.address
    durations = []
    for _ in range(3):
        started = time.monotonic()
        try:
            with socket.create_connection((address.host, address.port), bench.timeout):
                durations.append(time.monotonic() - started)
        except OSError as error:
            raise ProbeFailed(f"cannot connect again: {error.strerror or error}") from None
    return min(durations)


def retained(bench: ProbeSession) -> Finding:
    """Checks retained messages: models, births and the open round are retained for edges that come later."""
    effect = "edges that connect later find neither model nor round"
    remedy = "mosquitto.conf: retain_available true"
    if not bench.connack.retain_available:
        return Finding("retain", "missing", "the broker announces that it retains nothing", effect, remedy)
    topic, payload = bench.topic("retained"), b"kept"
    with bench.probe() as publisher:
        code = bench.retain(publisher, "retained", payload)
        if code >= FAILURE:
            return Finding(
                "retain", "missing", f"a retained message was refused (0x{code:02x})", effect, remedy
            )
        with bench.probe(second=True) as subscriber:
            subscriber.subscribe([topic])
            received = subscriber.receive(1, bench.timeout)
        if not received:
            return Finding(
                "retain", "missing", "a retained message was acknowledged but not kept", effect, remedy
            )
        if not received[0].retain or received[0].payload != payload:
            return Finding("retain", "missing", "a retained message came back altered", effect)
        bench.retain(publisher, "retained", b"")
        with bench.probe(second=True) as subscriber:
            subscriber.subscribe([topic])
            if subscriber.receive(1, bench.idle_timeout):
                return Finding(
                    "retain",
                    "missing",
                    "an empty message does not clear a retained one",
                    "rounds that have ended still look open",
                )
    return Finding("retain", "ok", "stored, delivered, cleared by an empty message")


def wildcards(bench: ProbeSession) -> Finding:
    """Checks ``+`` and ``#``, with which the aggregator subscribes to edges that it does not know yet."""
    effect = "the aggregator receives nothing from edges"
    if not bench.connack.wildcards_available:
        return Finding("wildcards", "missing", "the broker announces that it has none", effect)
    for wildcard in "+#":
        with bench.probe() as subscriber, bench.probe(second=True) as publisher:
            code = subscriber.subscribe([bench.topic(wildcard)])[0]
            if code >= FAILURE:
                return Finding(
                    "wildcards", "missing", f"{bench.topic(wildcard)} was refused (0x{code:02x})", effect
                )
            publisher.publish_and_wait(bench.topic("wild"), wildcard.encode())
            if not subscriber.receive(1, bench.timeout):
                return Finding("wildcards", "missing", f"{wildcard} was granted but delivers nothing", effect)
    return Finding("wildcards", "ok", "+ and #")


def retained_for_wildcards(bench: ProbeSession) -> Finding:
    """Checks whether a later subscription with ``+`` gets retained messages: some brokers give it none."""
    if not bench.connack.retain_available:
        return Finding("retain wildcards", "untested", "they need retain", essential=False)
    with bench.probe() as publisher:
        bench.retain(publisher, "kept-for-all", b"kept")
        with bench.probe(second=True) as subscriber:
            subscriber.subscribe([bench.topic("+")])
            received = subscriber.receive(1, bench.timeout)
        bench.retain(publisher, "kept-for-all", b"")
    if any(message.topic == bench.topic("kept-for-all") for message in received):
        return Finding("retain wildcards", "ok", "a later subscription with + gets what is retained")
    return Finding(
        "retain wildcards",
        "limited",
        "a later subscription with + gets nothing that is retained",
        "an edge that returns in mid-round hears of it when it registers; watchers see only what comes",
    )


def no_local(bench: ProbeSession) -> Finding:
    """Checks No Local and Retain As Published (MQTT 5, 3.8.3.1).

    With them, the aggregator notices messages of others on its own topics.
    """
    effect = "the aggregator receives its own messages"
    with bench.probe() as aggregator, bench.probe(second=True) as other:
        code = aggregator.subscribe([bench.topic("own")], no_local=True)[0]
        if code >= FAILURE:
            return Finding("no-local", "limited", f"refused (0x{code:02x})", effect, essential=False)
        aggregator.publish_and_wait(bench.topic("own"), b"own")
        if bench.connack.retain_available:
            bench.retain(other, "own", b"foreign")
        else:
            other.publish_and_wait(bench.topic("own"), b"foreign")
        received: list[ReceivedMessage] = []
        while not any(message.payload == b"foreign" for message in received):  # which comes last
            if not (batch := aggregator.receive(1, bench.timeout)):
                break
            received += batch
    if any(message.payload == b"own" for message in received):
        return Finding("no-local", "limited", "a client receives its own messages", effect)
    foreign = [each for each in received if each.payload == b"foreign"]
    if not foreign:
        return Finding("no-local", "missing", "a subscription with No Local delivers no messages of others")
    if bench.connack.retain_available and not foreign[0].retain:
        return Finding(
            "no-local",
            "limited",
            "the retain flag is not passed on",
            "messages that others retain on the aggregator's topics are replaced only when it reconnects",
        )
    return Finding("no-local", "ok", "own messages are not delivered, the retain flag is passed on")


def shared_subscriptions(bench: ProbeSession) -> Finding:
    """Checks ``$share``, which delivers each request for a prediction to one edge."""
    if not bench.connack.shared_available:
        return Finding(
            "shared", "limited", "the broker announces that it has no shared subscriptions", WITHOUT_SHARED
        )
    name = f"$share/doctor/{bench.topic('shared')}"
    with bench.probe() as first, bench.probe(second=True) as second:
        for message in (first, second):
            code = message.subscribe([name])[0]
            if code >= FAILURE:
                return Finding("shared", "limited", f"$share was refused (0x{code:02x})", WITHOUT_SHARED)
        expected = [number.to_bytes(2, "big") for number in range(SHARED_REQUESTS)]
        received: list[list[bytes]] = [[], []]
        for number, payload in enumerate(expected, 1):
            first.publish_and_wait(bench.topic("shared"), payload)
            # One request after another, since another check tests how much a subscriber's queue holds.
            deadline = time.monotonic() + bench.timeout
            while sum(map(len, received)) < number and time.monotonic() < deadline:
                for probe, payloads in zip((first, second), received, strict=True):
                    payloads += [each.payload for each in probe.receive(1, POLL_TIMEOUT)]
            if sum(map(len, received)) < number:
                break
        for probe, payloads in zip((first, second), received, strict=True):
            payloads += [
                each.payload for each in receive_until_idle(probe, SHARED_REQUESTS, bench.idle_timeout)
            ]
    counts = [len(each) for each in received]
    measured = {"first": counts[0], "second": counts[1], "sent": SHARED_REQUESTS}
    if sorted(received[0] + received[1]) == expected:
        shares = " and ".join(map(str, counts))
        return Finding(
            "shared",
            "ok",
            f"two predictors received {shares} of {SHARED_REQUESTS} requests",
            measured=measured,
        )
    if sum(counts) > SHARED_REQUESTS:
        effect = "requests are answered more than once"
    elif sum(counts):
        effect = "requests are lost, and repeated after 5 s"
    else:
        effect = WITHOUT_SHARED
    return Finding(
        "shared", "limited", f"{counts} of {SHARED_REQUESTS} requests arrived", effect, measured=measured
    )


def wills(bench: ProbeSession) -> Finding:
    """Checks retained wills, by which a lost edge or a lost aggregator is noticed before a deadline."""
    if not bench.connack.retain_available:
        return Finding("wills", "untested", "retained wills need retain", essential=False)
    effect = "lost edges are noticed only at the round's deadline"
    will = bench.will("will", b"gone")
    with bench.probe() as subscriber:
        subscriber.subscribe([will.topic])
        client = bench.probe(second=True, will=will)
        aborted_at = client.abort()
        received = subscriber.receive(1, bench.timeout)
        if not received:
            return Finding(
                "wills", "limited", f"none within {bench.timeout:g} s after a connection was cut", effect
            )
        seconds = round(received[0].received_at - aborted_at, 4)
        with bench.probe(second=True) as late_subscriber:
            late_subscriber.subscribe([will.topic])
            retained_will = late_subscriber.receive(1, bench.timeout)
    measured = {"seconds": seconds}
    if not retained_will or not retained_will[0].retain:
        return Finding(
            "wills",
            "limited",
            "published, but not retained",
            "clients that connect later take lost edges for online",
            measured=measured,
        )
    if seconds > MAX_WILL_DELAY:
        return Finding(
            "wills", "limited", f"{seconds:.1f} s after the connection was cut", effect, measured=measured
        )
    return Finding(
        "wills",
        "ok",
        f"published {seconds * 1000:.1f} ms after a connection was cut, and retained",
        measured=measured,
    )


def expiry(bench: ProbeSession) -> Finding:
    """Checks message expiry, which removes a request whose asker no longer waits for the answer."""
    if not bench.connack.retain_available:
        return Finding("expiry", "untested", "can only be tested with retained messages", essential=False)
    effect = "prediction requests are answered long after their askers have left"
    topic = bench.topic("expiry")
    with bench.probe() as publisher:
        bench.retain(publisher, "expiry", b"short-lived", expiry=EXPIRY_SECONDS)
        published_at = time.monotonic()
        with bench.probe(second=True) as early_subscriber:
            early_subscriber.subscribe([topic])
            received = early_subscriber.receive(1, bench.timeout)
        time.sleep(
            max(0.0, published_at + EXPIRY_SECONDS + 1.1 - time.monotonic())
        )  # brokers count whole seconds
        with bench.probe(second=True) as late_subscriber:
            late_subscriber.subscribe([topic])
            expired = late_subscriber.receive(1, bench.idle_timeout)
    if expired:
        return Finding(
            "expiry",
            "limited",
            f"a message that expires after {EXPIRY_SECONDS} s was delivered later",
            effect,
        )
    if received and received[0].expiry is None:
        return Finding("expiry", "ok", "messages expire; the remaining time is not passed on")
    return Finding("expiry", "ok", "messages expire, and the remaining time is passed on")


def response_topics(bench: ProbeSession) -> Finding:
    """Checks that Response Topic and Correlation Data reach the edge that is asked."""
    correlation_data = bytes(range(16))
    with bench.probe() as edge, bench.probe(second=True) as asker:
        edge.subscribe([bench.topic("ask")])
        asker.wait_acknowledged(
            [
                asker.publish(
                    bench.topic("ask"),
                    b"?",
                    response_topic=bench.topic("answer"),
                    correlation_data=correlation_data,
                )
            ]
        )
        received = edge.receive(1, bench.timeout)
    effect = f"answers go to {bench.prefix}/predictions, where all can read them, and predict receives none"
    if not received:
        return Finding("answers", "limited", "a message with a response topic does not arrive", effect)
    properties = (received[0].response_topic, received[0].correlation_data)
    if properties != (bench.topic("answer"), correlation_data):
        return Finding("answers", "limited", "response topic and correlation data are not passed on", effect)
    return Finding("answers", "ok", "response topic and correlation data are passed on")
