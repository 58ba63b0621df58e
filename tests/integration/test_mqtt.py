"""Messages and limits on a real Mosquitto with its default limits."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from fl_shared.errors import MessageTooLarge, QueueFull
from fl_shared.mqtt.events import Received, Subscribed
from fl_shared.mqtt.network import Network
from fl_shared.mqtt.paho.compatibility import STOCK_ENV
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.connection_harness import NEVER, ConnectionHarness, connected, settings
from tests.support.wait import DEADLINE, wait_until

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_arrives_as_it_was_sent(network: Network, shared_mosquitto: Mosquitto, qos: int) -> None:
    one = connected(network, shared_mosquitto)
    assert one.subscribed(f"as-sent/{qos}", qos=2).codes == (2,)
    payload = bytes(range(256)) * 3
    assert one.connection.publish(
        f"as-sent/{qos}",
        payload,
        qos=qos,
        response_topic="as-sent/answer",
        correlation_data=b"\0\xff",
        expiry=60,
    )
    assert one.next(Received) == Received(f"as-sent/{qos}", payload, False, qos, "as-sent/answer", b"\0\xff")


@pytest.mark.parametrize("stock", ["", "1"], ids=["shortcuts", "stock"])
def test_a_message_without_a_payload_has_the_size_of_its_properties(
    network: Network, shared_mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, stock: str
) -> None:
    """An empty message may cost megabytes; the limits count what came."""
    monkeypatch.setenv(STOCK_ENV, stock)
    one = connected(network, shared_mosquitto)
    one.subscribed(f"properties/{stock}")
    pairs = [("", "")] * 100_000
    with Client(shared_mosquitto.endpoint) as sender:
        sender.publish(f"properties/{stock}", b"", user_properties=pairs)
    received = one.next(Received)
    assert received.payload == b""
    assert received.size > 5 * len(pairs)


def test_a_retained_message_says_so_and_is_cleared_by_an_empty_one(
    network: Network, shared_mosquitto: Mosquitto
) -> None:
    one, other = connected(network, shared_mosquitto), connected(network, shared_mosquitto)
    assert one.connection.publish("kept/a", b"1", retain=True)
    assert one.subscribed("kept/a")
    assert one.next(Received) == Received("kept/a", b"1", True, 1)
    assert one.connection.publish("kept/a", b"", retain=True)
    assert one.next(Received) == Received("kept/a", b"", False, 1)
    other.subscribed("kept/#")
    assert other.quiet_for(0.2) == []


def test_many_filters_are_asked_for_eight_at_a_time_and_let_go(
    network: Network, shared_mosquitto: Mosquitto
) -> None:
    one = connected(network, shared_mosquitto)
    names = [f"many/{i}" for i in range(20)]
    assert one.connection.subscribe([(name, i % 2) for i, name in enumerate(names)])
    answers = [one.next(Subscribed) for _ in range(3)]
    assert [len(answer.filters) for answer in answers] == [8, 8, 4]
    assert [name for answer in answers for name in answer.filters] == names
    assert [code for answer in answers for code in answer.codes] == [i % 2 for i in range(20)]
    assert one.connection.unsubscribe(names[:19])
    for name in names:
        assert one.connection.publish(name, b"x")
    assert one.next(Received).topic == "many/19"
    assert one.quiet_for(0.2) == []


def test_a_large_message_and_small_ones_that_wait_for_nothing(
    network: Network, shared_mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without TCP_NODELAY, a round trip takes 44 ms or more."""
    made: list[socket.socket] = []
    connect = socket.create_connection

    def remember(*args: Any, **options: Any) -> socket.socket:
        made.append(connect(*args, **options))
        return made[-1]

    monkeypatch.setattr(socket, "create_connection", remember)
    one = connected(network, shared_mosquitto)
    one.subscribed("large/#")
    large = bytes(1_700_000)
    assert one.connection.publish("large/1", large)
    assert one.next(Received).payload == large
    (sock,) = made
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_mqtt_cannot_express_raises_at_the_caller(network: Network, shared_mosquitto: Mosquitto) -> None:
    connection = connected(network, shared_mosquitto).connection
    for topic in ("", "a/+", "#", "a\0", "x" * 70_000, "\ud800"):
        with pytest.raises(ValueError, match=r"topic|surrogates"):
            connection.publish(topic, b"")
    for name in ("", "a#", "a/#/b", "a+/b", "a\0"):
        with pytest.raises(ValueError, match="filter"):
            connection.subscribe([("fine", 0), (name, 0)])
    with pytest.raises(ValueError, match="qos"):
        connection.publish("a", b"", qos=3)
    with pytest.raises(ValueError, match="correlation"):
        connection.publish("a", b"", correlation_data=bytes(70_000))
    with pytest.raises(ValueError, match="expiry"):
        connection.publish("a", b"", expiry=-1)
    with pytest.raises(TypeError, match="payload"):
        connection.publish("a", "text")  # type: ignore[arg-type]
    assert connection.publish("still/there", b"")


def subscribes(one: ConnectionHarness) -> bool:
    with contextlib.suppress(QueueFull):
        return one.connection.subscribe([("full", 1)])
    return False


def test_what_waits_is_bounded(network: Network, mosquitto: Mosquitto) -> None:
    one = connected(network, mosquitto, max_queued=50, max_queued_bytes=10_000_000, keepalive=60)
    mosquitto.freeze()
    for _ in range(50):
        assert one.connection.publish("full", b"x")
    with pytest.raises(QueueFull, match="50 messages"):
        one.connection.publish("full", b"x")
    mosquitto.thaw()
    wait_until(lambda: subscribes(one), DEADLINE, "room for a subscription")
    one.next(Subscribed)  # queued behind them: when it is answered, all are sent
    mosquitto.freeze()
    for _ in range(3):
        assert one.connection.publish("full", bytes(3_000_000))
    with pytest.raises(QueueFull, match="3 messages"):
        one.connection.publish("full", bytes(3_000_000))
    mosquitto.thaw()
    assert [len(one.next(Received).payload) for _ in range(3)] == [3_000_000] * 3


def test_the_announced_packet_size_is_kept_to(network: Network, tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path, extra=["max_packet_size 131072", "max_inflight_messages 3"])
    try:
        one = connected(network, broker)
        limits = one.connection.limits
        assert limits is not None
        assert (limits.maximum_packet_size, limits.receive_maximum) == (131_072, 3)
        one.subscribed("limit")
        overhead = 1 + 3 + 2 + len("limit") + 2 + 1
        with pytest.raises(MessageTooLarge) as caught:
            one.connection.publish("limit", bytes(131_072 - overhead + 1))
        assert (caught.value.size, caught.value.limit) == (131_073, 131_072)
        assert one.connection.publish("limit", bytes(131_072 - overhead))
        assert len(one.next(Received).payload) == 131_072 - overhead
        for _ in range(50):
            assert one.connection.publish("limit", b"x")
        for _ in range(50):
            one.next(Received)
    finally:
        broker.stop()


def test_a_broker_may_take_packets_of_256_mib(network: Network, tmp_path: Path) -> None:
    """Mosquitto's largest ``max_packet_size``: paho takes it for a mistake."""
    broker = Mosquitto(tmp_path, extra=["max_packet_size 268435456"])
    try:
        limits = connected(network, broker).connection.limits
        assert limits is not None
        assert limits.maximum_packet_size == 268_435_455
    finally:
        broker.stop()


def test_three_hundred_connections_and_two_networks(network: Network, shared_mosquitto: Mosquitto) -> None:
    other = Network("other")
    try:
        hub = connected(other, shared_mosquitto)
        hub.subscribed("crowd/#")
        threads = threading.active_count()
        peers = [ConnectionHarness(network, settings(shared_mosquitto)) for _ in range(300)]
        for one in peers:
            one.connection.wait_connected(DEADLINE)
        assert threading.active_count() - threads <= 8
        for i, one in enumerate(peers):
            assert one.connection.publish(f"crowd/{i}", b"here")
        assert {hub.next(Received).topic for _ in peers} == {f"crowd/{i}" for i in range(300)}
    finally:
        other.close()
    other.check()
    network.close(timeout=NEVER)  # all brokers answer: there is nothing to wait for
