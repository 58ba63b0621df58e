"""The client with shortcuts and paho's own: when which one is used, and that they do the same on a real broker."""

from __future__ import annotations

import hashlib
import itertools
import random
import socket
import threading
from collections.abc import Iterator

import paho.mqtt
import pytest
from paho.mqtt.client import Client

from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import Connected, ConnectionSettings, Lost, Received
from fl_shared.mqtt.network import Network
from fl_shared.mqtt.paho import compatibility
from fl_shared.mqtt.paho.compatibility import client_class
from fl_shared.mqtt.paho.fast_client import FastClient
from fl_shared.mqtt.paho.publish_packet import MIN_VIEW_BYTES
from tests.support.broker import Mosquitto
from tests.support.connection_harness import ConnectionHarness, connected
from tests.support.wait import DEADLINE


@pytest.fixture(autouse=True)
def _looks_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(compatibility.STOCK_ENV, raising=False)
    compatibility._is_supported_paho.cache_clear()
    yield
    compatibility._is_supported_paho.cache_clear()


def test_the_installed_paho_is_one_they_were_written_for() -> None:
    """If this fails after an upgrade: read what changed in paho, then widen `VERSION`. All works without."""
    assert compatibility.differences() == []
    assert client_class() is FastClient


@pytest.mark.parametrize("version", ["2.1.0", "2.3.0", "2.20.0", "3.0.0"])
def test_another_version_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    monkeypatch.setattr(paho.mqtt, "__version__", version)
    assert client_class() is Client
    assert f"version {version}" in caplog.text


def test_a_private_method_that_is_called_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: Client, packet: bytes) -> None:
        raise AssertionError("not to be called")

    monkeypatch.setattr(Client, "_packet_queue", other)
    assert compatibility.differences() == ["Client._packet_queue"]
    assert client_class() is Client


def test_a_private_method_that_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Client, "_packet_read")
    assert compatibility.differences() == ["Client._packet_read"]
    assert client_class() is Client


def test_an_attribute_that_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Client.__init__

    def without(self: Client, *args: object, **options: object) -> None:
        made(self, *args, **options)  # type: ignore[arg-type]
        del self._out_packet
        self._in_packet = {"command": 0}  # type: ignore[typeddict-item]

    monkeypatch.setattr(Client, "__init__", without)
    monkeypatch.setattr(Client, "__del__", lambda _: None)
    assert compatibility.differences() == ["Client()._out_packet", "Client()._in_packet"]


def test_stock_paho_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compatibility.STOCK_ENV, "1")
    assert client_class() is Client
    monkeypatch.setenv(compatibility.STOCK_ENV, "")
    assert client_class() is FastClient


@pytest.mark.broker
@pytest.mark.parametrize("sender", ["stock", "shortcuts"])
@pytest.mark.parametrize("receiver", ["stock", "shortcuts"])
def test_messages_of_all_sizes_arrive_whole_and_in_order(
    network: Network,
    shared_mosquitto: Mosquitto,
    monkeypatch: pytest.MonkeyPatch,
    sender: str,
    receiver: str,
) -> None:
    """Sizes around where small ends, the read-ahead ends and the length takes another byte; QoS mixed.

    Half of them are given in up to five pieces.
    """
    monkeypatch.setenv(compatibility.STOCK_ENV, "1" if sender == "stock" else "")
    one = connected(network, shared_mosquitto, max_queued_bytes=2**30)
    monkeypatch.setenv(compatibility.STOCK_ENV, "1" if receiver == "stock" else "")
    other = connected(network, shared_mosquitto)
    topic = f"sizes/{sender}/{receiver}"
    other.subscribed(topic, qos=2)
    chance = random.Random(0)
    sizes = [
        0,
        1,
        100,
        127,
        128,
        *(near + step for near in (MIN_VIEW_BYTES, 65_536, 2**21) for step in range(-20, 5)),
    ]
    sizes += [chance.choice((10, 3_000, 40_000, 300_000)) for _ in range(200)]
    chance.shuffle(sizes)
    sent = []
    for number, size in enumerate(sizes):
        payload = chance.randbytes(size)
        # At QoS 0 the broker drops what its queue cannot take, and QoS 2 overtakes nothing only among itself.
        qos = 2 if number % 50 == 49 else 1
        cuts = [0, *sorted(chance.choices(range(size + 1), k=4)), size]
        pieces = tuple(memoryview(payload)[start:stop] for start, stop in itertools.pairwise(cuts))
        given = pieces if number % 2 else payload
        assert one.connection.publish(topic, given, qos=qos, correlation_data=b"%d" % number)
        sent.append((b"%d" % number, qos, hashlib.sha256(payload).digest()))
    got = []
    for _ in sizes:
        received = other.next(Received)
        assert isinstance(received.payload, memoryview if len(received.payload) >= MIN_VIEW_BYTES else bytes)
        got.append((received.correlation_data, received.qos, hashlib.sha256(received.payload).digest()))
    assert sorted(got) == sorted(sent)
    assert [one for one in got if one[1] == 1] == [one for one in sent if one[1] == 1]


@pytest.mark.broker
@pytest.mark.parametrize("size", [0, MIN_VIEW_BYTES, 5_000_000])
def test_a_graceful_close_sends_messages_of_qos_0_too(
    network: Network, shared_mosquitto: Mosquitto, size: int
) -> None:
    """A large one is a header and a payload to the socket: it is sent only when both are."""
    one, other = connected(network, shared_mosquitto), connected(network, shared_mosquitto)
    other.subscribed(f"zero/{size}")
    assert one.connection.publish(f"zero/{size}", bytes(size), qos=0)
    one.connection.close()
    assert other.next(Received).payload == bytes(size)


CONNACK = b"\x20\x03\x00\x00\x00"


def publish_packet(payload: bytes) -> bytes:
    rest = b"\0\1t\0" + payload
    length = len(rest)
    varint = b""
    while True:
        length, low = length >> 7, length & 127
        varint += bytes([low | (128 if length else 0)])
        if not length:
            return b"\x30" + varint + rest


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_packets_that_come_in_pieces_are_put_together(network: Network, step: int) -> None:
    payloads = [b"", b"x", bytes(127), bytes(300), b"y" * (200 if step < 7 else 70_000), b"end"]
    stream = CONNACK + b"".join(map(publish_packet, payloads))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.recv(1000)
                for start in range(0, len(stream), step):
                    client.sendall(stream[start : start + step])

        thread = threading.Thread(target=serve)
        thread.start()
        one = ConnectionHarness(
            network, ConnectionSettings(BrokerAddress("127.0.0.1", server.getsockname()[1]))
        )
        one.next(Connected)
        for payload in payloads:
            received = one.events.get(timeout=DEADLINE)
            assert isinstance(received, Received)
            assert received.payload == payload
        assert one.next(Lost).failures == 0
        thread.join(DEADLINE)
        one.connection.close(graceful=False)


@pytest.mark.parametrize(
    "bad",
    [
        b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x30\x80\x80\x80\x80\x80\x01",
        b"\x36\x06\x00\x01t\x00\x01\x00",  # QoS 3
        b"\x30\x01\x00",  # no topic
        b"\x00\x00",  # no such packet
        b"\xd0\x01\x00",  # PINGRESP with something in it
        b"\x40\x01\x00",  # PUBACK without an id
    ],
    ids=["length", "longer", "qos3", "short", "kind", "pingresp", "puback"],
)
@pytest.mark.parametrize("client", ["stock", "shortcuts"])
def test_what_is_not_mqtt_ends_the_connection(
    network: Network, monkeypatch: pytest.MonkeyPatch, client: str, bad: bytes
) -> None:
    monkeypatch.setenv(compatibility.STOCK_ENV, "1" if client == "stock" else "")
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            held.append(server.accept()[0])
            held[0].recv(1000)
            held[0].sendall(CONNACK + publish_packet(b"before") + bad + publish_packet(b"after"))

        thread = threading.Thread(target=serve)
        thread.start()
        one = ConnectionHarness(
            network, ConnectionSettings(BrokerAddress("127.0.0.1", server.getsockname()[1]))
        )
        one.next(Connected)
        first = one.events.get(timeout=DEADLINE)
        assert isinstance(first, Received)
        assert first.payload == b"before"
        lost = one.events.get(timeout=DEADLINE)
        assert isinstance(lost, Lost)
        assert "not MQTT 5" in lost.reason
        thread.join(DEADLINE)
        held[0].close()
        one.connection.close(graceful=False)
