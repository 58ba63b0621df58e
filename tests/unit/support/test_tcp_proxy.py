"""The proxy that makes faults on a connection does what it says, on real sockets."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from fl_shared.system.mosquitto import LOOPBACK
from tests.support.tcp_proxy import PacketStarts, TcpProxy
from tests.support.wait import wait_until


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server((LOOPBACK, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while piece := connection.recv(65536):
                        connection.sendall(piece)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection((LOOPBACK, proxy.port), timeout=5.0)


def there_and_back(connection: socket.socket, data: bytes) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    sending = threading.Thread(target=connection.sendall, args=(data,))
    sending.start()
    got = bytearray()
    while len(got) < len(data):
        piece = connection.recv(65536)
        assert piece, "the connection is over"
        got += piece
    sending.join()
    assert got == data
    return time.monotonic() - began


def test_everything_goes_through_and_is_counted(echo: int) -> None:
    with TcpProxy(echo) as proxy, connect(proxy) as connection:
        there_and_back(connection, bytes(range(256)) * 4000)
        # What came back to us is counted a moment later.
        wait_until(lambda: proxy.traffic.down == 1_024_000, 5, "all of it is counted")
        assert (proxy.traffic.up, proxy.traffic.down) == (1_024_000, 1_024_000)


def test_a_cut_resets_connections_and_refuses_new_ones_until_it_is_restored(echo: int) -> None:
    with TcpProxy(echo) as proxy:
        with connect(proxy) as connection:
            there_and_back(connection, b"x")
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        with pytest.raises(ConnectionResetError), connect(proxy) as connection:
            connection.recv(1)
        proxy.restore()
        with connect(proxy) as connection:
            there_and_back(connection, b"x")


def test_a_stall_keeps_the_connection_and_everything_in_it(echo: int) -> None:
    with TcpProxy(echo) as proxy, connect(proxy) as connection:
        proxy.stall()
        connection.sendall(b"later")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.flow()
        connection.settimeout(5.0)
        assert connection.recv(5) == b"later"


def test_a_hold_keeps_back_what_comes_from_its_marker_on(echo: int) -> None:
    with TcpProxy(echo) as proxy, connect(proxy) as connection:
        held = proxy.hold("down", "round/2")
        there_and_back(connection, b"round/1 ro")
        connection.sendall(b"und/2")  # the marker may come in two pieces
        held.wait(5.0)
        assert not select.select([connection], [], [], 0.0)[0]
        held.release()
        assert connection.recv(5, socket.MSG_WAITALL) == b"und/2"
        there_and_back(connection, b"round/2")


def test_a_limit_is_kept_to_and_lifted(echo: int) -> None:
    with TcpProxy(echo) as proxy, connect(proxy) as connection:
        proxy.limit(500_000)
        assert there_and_back(connection, bytes(200_000)) > 0.35
        proxy.limit(None)
        there_and_back(connection, bytes(200_000))
        assert proxy.rate is None


def test_delayed_packets_come_in_their_order(echo: int) -> None:
    packets = b"".join(bytes([0x30, 2, 0, number]) for number in range(20))
    with TcpProxy(echo) as proxy, connect(proxy) as connection:
        proxy.delay(1.0, 0.01, 0.02)
        assert there_and_back(connection, packets) > 20 * 0.01
        proxy.delay(0.0)
        there_and_back(connection, packets)


def test_what_the_other_side_ends_is_ended(echo: int) -> None:
    with socket.create_server((LOOPBACK, 0)) as nobody:
        port = nobody.getsockname()[1]
    with TcpProxy(port) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as connection:
        connection.recv(1)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_packets_are_found_in_pieces_of_any_size(size: int) -> None:
    bodies = [b"", b"a", b"b" * 127, b"c" * 128, b"", b"d" * 20_000]
    stream, expected = b"", []
    for body in bodies:
        expected.append(len(stream))
        length, rest = bytearray(), len(body)
        while True:
            rest, digit = divmod(rest, 128) if rest >= 128 else (0, rest)
            length.append(digit | (0x80 if rest else 0))
            if not rest:
                break
        stream += bytes([0x30]) + bytes(length) + body
    starts = PacketStarts()
    found = [
        at + start for at in range(0, len(stream), size) for start in starts.feed(stream[at : at + size])
    ]
    assert found == expected
