"""MQTT inside WebSockets: a real Mosquitto, proxies and others that are none, and a run over wss with kits."""

from __future__ import annotations

import os
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

import pytest

from fl_shared.errors import ServerRequiresTls, WebSocketRefused
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import Connected, ConnectionSettings, ConnectRefused, Lost, Received
from fl_shared.mqtt.network import Network
from fl_shared.mqtt.websocket import MAX_FRAME_PAYLOAD, WebSocket
from fl_shared.security.tls import Tls
from fl_shared.system.mosquitto import LOOPBACK
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.certificates import Authority
from tests.support.connection_harness import ConnectionHarness
from tests.support.ports import free_port

SIZES = (
    0,
    1,
    125,
    126,
    5000,
    65_535,
    65_536,
    MAX_FRAME_PAYLOAD - 1,
    MAX_FRAME_PAYLOAD,
    MAX_FRAME_PAYLOAD + 1,
    1_500_000,
)


@dataclass
class Site:
    broker: Mosquitto
    authority: Authority
    ws: int
    wss: int

    def settings(self, scheme: str) -> ConnectionSettings:
        port = self.ws if scheme == "ws" else self.wss
        address = BrokerAddress.parse(f"{scheme}://{LOOPBACK}:{port}")
        tls = Tls.read(self.authority.ca, None, None).context() if address.is_encrypted else None
        return ConnectionSettings(address, tls=tls, keepalive=2, retry_cap=0.3)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    authority = Authority(directory / "authority")
    pair, ws, wss = authority.broker(), free_port(), free_port()
    extra = [f"listener {ws} {LOOPBACK}", "protocol websockets"]
    extra += [f"listener {wss} {LOOPBACK}", "protocol websockets", f"cafile {authority.ca}"]
    extra += [f"certfile {pair.cert}", f"keyfile {pair.key}"]
    broker = Mosquitto(directory, extra=extra)
    try:
        yield Site(broker, authority, ws, wss)
    finally:
        broker.stop()


# --- with a broker ----------------------------------------------------------------------------------------------


@pytest.mark.broker
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_messages_of_any_size_pass(site: Site, scheme: str) -> None:
    with Network() as network:
        one, other = (ConnectionHarness(network, site.settings(scheme)) for _ in range(2))
        one.next(Connected), other.next(Connected)
        one.subscribed(f"sizes/{scheme}")
        payloads = [os.urandom(size) for size in SIZES] + [bytes([number]) * number for number in range(100)]
        for payload in payloads:
            assert other.connection.publish(f"sizes/{scheme}", payload)
        for payload in payloads:
            assert bytes(one.next(Received, 30).payload) == payload
        network.check()


@pytest.mark.broker
def test_its_keepalive_holds_it_and_its_end_is_noticed(site: Site) -> None:
    with Network() as network:
        one = ConnectionHarness(network, site.settings("ws"))
        one.next(Connected)
        one.quiet_for(5.0)
        assert one.connection.limits is not None, "two keepalives later it is still there"
        site.broker.restart()
        one.next(Lost)
        one.next(Connected)


@pytest.mark.broker
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ws://127.0.0.1:{plain}", "127.0.0.1:{plain}/mqtt"),
        ("ws://127.0.0.1:{wss}", "requires TLS: write wss://127.0.0.1:{wss}"),
        ("wss://127.0.0.1:{ws}", "does not use TLS"),
        ("mqtt://127.0.0.1:{ws}", "or a port for WebSockets (ws://127.0.0.1:{ws})?"),
    ],
)
def test_the_wrong_kind_of_port_is_said(site: Site, url: str, says: str) -> None:
    ports = {"plain": site.broker.port, "ws": site.ws, "wss": site.wss}
    address = BrokerAddress.parse(url.format(**ports))
    tls = Tls.read(site.authority.ca, None, None).context() if address.is_encrypted else None
    with Network() as network:
        one = ConnectionHarness(network, ConnectionSettings(address, tls=tls))
        reason = one.next(ConnectRefused).reason if "TLS" in says else one.next(Lost).reason
        assert says.format(**ports) in reason


@pytest.mark.broker
def test_a_run_over_wss(site: Site, tmp_path: Path) -> None:
    url = f"wss://localhost:{site.wss}/mqtt"
    options = ("--ca", str(site.authority.ca), "--task", "synthetic-20000")
    plan = ("--clients", "3", "--per-round", "3", "--rounds", "2")
    with (
        programs.edges(tmp_path / "edges", url, "0-2", *options, "--role", "train") as edges,
        programs.aggregator(tmp_path, url, *options, *plan) as aggregator,
    ):
        aggregator.ends_well()
        assert f"connected to {url}" in edges.err
    assert [line["outcome"] for line in programs.history(tmp_path) if line.get("outcome")][-1] == "committed"


# --- with a server that is told what to answer ------------------------------------------------------------------


Answer = Callable[[socket.socket, bytes], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], BrokerAddress]]:
    """Serves one connection: ``answer`` gets its socket and the value of Sec-WebSocket-Accept for it."""
    threads: list[threading.Thread] = []
    servers: list[socket.socket] = []

    def begin(answer: Answer) -> BrokerAddress:
        server = socket.create_server((LOOPBACK, 0))
        servers.append(server)

        def run() -> None:
            try:
                with server.accept()[0] as sock:
                    sock.settimeout(5)
                    request = b""
                    while b"\r\n\r\n" not in request:
                        request += sock.recv(4096)
                    key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
                    guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                    answer(sock, b64encode(sha1(key + guid).digest()))
            except OSError:
                pass  # the client has gone

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return BrokerAddress(LOOPBACK, server.getsockname()[1], scheme="ws", path="/mqtt")

    yield begin
    for server in servers:
        server.close()
    for thread in threads:
        thread.join(10)


def head(proof: bytes, *more: bytes) -> bytes:
    lines = (b"HTTP/1.1 101 Switching Protocols", b"Upgrade: WebSocket", b"Connection: keep-alive, Upgrade")
    return b"\r\n".join([*lines, b"Sec-WebSocket-Accept: " + proof, *more, b"", b""])


def opened(address: BrokerAddress, timeout: float = 5.0) -> WebSocket:
    return WebSocket(socket.create_connection((address.host, address.port), timeout), address, timeout)


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (lambda _: b"HTTP/1.1 404 Not Found\r\n\r\n", WebSocketRefused, "'404 Not Found' for the path /mqtt"),
        (lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", WebSocketRefused, "'200 OK'"),
        (lambda _: b"SSH-2.0-OpenSSH_9.2\r\n", WebSocketRefused, "does not speak HTTP"),
        (lambda _: b"HTTP/1.1 abc\r\n\r\n", WebSocketRefused, "does not speak HTTP"),
        (lambda _: b"", WebSocketRefused, "it closed the connection"),
        (lambda _: b"\x15\x03\x01\x00\x02\x02F", ServerRequiresTls, "^$"),
        (lambda _: head(b"nonsense"), WebSocketRefused, "did not answer as a WebSocket server"),
        (
            lambda proof: head(proof).replace(b"WebSocket\r", b"h2c\r"),
            WebSocketRefused,
            "did not answer as a",
        ),
        (lambda proof: head(proof, b"Sec-WebSocket-Protocol: chat"), WebSocketRefused, "is not MQTT"),
        (lambda _: b"HTTP/1.1 101 X\r\n" + b"a: b\r\n" * 10_000, WebSocketRefused, "longer than 16384"),
    ],
)
def test_an_answer_that_is_no_websockets(
    serve: Callable[[Answer], BrokerAddress],
    answer: Callable[[bytes], bytes],
    kind: type[Exception],
    says: str,
) -> None:
    with pytest.raises(kind, match=says):
        opened(serve(lambda sock, proof: sock.sendall(answer(proof))))


def test_an_answer_that_trickles_is_not_waited_for(serve: Callable[[Answer], BrokerAddress]) -> None:
    gone = threading.Event()

    def trickle(sock: socket.socket, _: bytes) -> None:
        for byte in b"HTTP/1.1 101 Switching Protocols\r\n" * 10:
            sock.sendall(bytes((byte,)))
            if gone.wait(0.1):
                return

    address = serve(trickle)
    with pytest.raises(TimeoutError):
        opened(address, timeout=0.5)
    gone.set()


def test_frames_in_any_shape_are_one_stream(serve: Callable[[Answer], BrokerAddress]) -> None:
    """Fragments, empty ones, a ping in between, lengths of all three forms, the first in one piece with the head."""
    heard: list[bytes] = []
    parts = [b"a" * 10, b"", b"b" * 200, b"c" * 70_000]

    def answer(sock: socket.socket, proof: bytes) -> None:
        first = b"\x02\x0a" + parts[0]
        sock.sendall(head(proof) + first + b"\x89\x02hi")  # a ping inside a fragmented message
        sock.sendall(b"\x00\x00" + b"\x80\x7e\x00\xc8" + parts[2])
        sock.sendall(b"\x82\x7f" + len(parts[3]).to_bytes(8, "big") + parts[3])
        heard.append(sock.recv(100))
        sock.sendall(b"\x88\x00")

    stream = opened(serve(answer))
    try:
        expected, got = b"".join(parts), b""
        while len(got) < len(expected):
            got += stream.recv(3000)
        assert got == expected
        assert stream.recv(10) == b"", "closed"
        pong = heard[0]
        assert pong[:2] == b"\x8a\x82"
        assert bytes(byte ^ pong[2 + i % 4] for i, byte in enumerate(pong[6:8])) == b"hi"
    finally:
        stream.close()


@pytest.mark.parametrize(
    "frame",
    [b"\x81\x01x", b"\x82\x81\0\0\0\0x", b"\xc2\x01x", b"\x89\x7e\x00\x80" + bytes(128), b"\x09\x00"],
    ids=["text", "masked", "reserved bit", "long ping", "fragmented ping"],
)
def test_a_server_that_breaks_the_rules_is_left(
    serve: Callable[[Answer], BrokerAddress], frame: bytes
) -> None:
    stream = opened(serve(lambda sock, proof: sock.sendall(head(proof) + frame)))
    try:
        with pytest.raises(ConnectionError, match="broker"):
            stream.recv(100)
    finally:
        stream.close()


def test_what_a_socket_does_not_take_at_once_comes_whole(serve: Callable[[Answer], BrokerAddress]) -> None:
    """The server begins to read only when nothing more fits; ``send`` is asked again with the same bytes."""
    payload = os.urandom(6_000_000)
    full, heard = threading.Event(), bytearray()

    def answer(sock: socket.socket, proof: bytes) -> None:
        sock.sendall(head(proof))
        full.wait(5)
        while more := sock.recv(2**20):
            heard.extend(more)

    stream = opened(serve(answer))
    stream.setblocking(False)
    sent, refused = 0, 0
    try:
        while sent < len(payload):
            try:
                sent += stream.send(memoryview(payload)[sent:])
            except BlockingIOError:
                refused += 1
                full.set()
    finally:
        stream.close()
    assert refused
    deadline = 500
    while len(heard) < len(payload) and deadline:
        deadline -= 1
        threading.Event().wait(0.01)
    assert unframed(bytes(heard)) == payload


def unframed(data: bytes) -> bytes:
    """The payloads of masked binary frames."""
    import numpy as np

    found, at = b"", 0
    while at < len(data):
        assert data[at] == 0x82
        assert data[at + 1] & 0x80, "clients mask"
        size, extra = data[at + 1] & 0x7F, {126: 2, 127: 8}.get(data[at + 1] & 0x7F, 0)
        if extra:
            size = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
        at += 2 + extra
        key, body = data[at : at + 4], np.frombuffer(data[at + 4 : at + 4 + size], np.uint8)
        found += (body ^ np.resize(np.frombuffer(key, np.uint8), len(body))).tobytes()
        at += 4 + size
    return found
