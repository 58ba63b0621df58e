"""Compares the throughput of our WebSocket framing with that of wsproto, in both directions.

    pip install wsproto && python benchmarks/websocket_framing.py [--repeat 5]

A child process acts as the broker at the other end of a socket pair, so that only the framing differs. For
each direction and size of frame, both framings alternate. The numbers are medians of payload bytes per
second, and ``ratio`` is the median of wsproto's throughput divided by ours in the same turn. Prints one JSON
line.

Frames of 256 KiB are what we cut large messages into, 4 KiB what Mosquitto 2.0 sends, 200 bytes a small
message.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import socket
import statistics
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha1
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol

import wsproto
from wsproto import events

from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.websocket import BUFFER_SIZE, MAX_FRAME_PAYLOAD, WebSocket

ADDRESS: Final = BrokerAddress("localhost", 9001, scheme="ws", path="/mqtt")
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TIMEOUT: Final = 60.0
CASES: Final = {"256 KiB": (2**18, 1000), "4 KiB": (2**12, 20_000), "200 B": (200, 20_000)}
"""The bytes of a frame's payload, and the number of frames."""


class Framing(Protocol):
    """The methods of a WebSocket that MQTT uses."""

    def send(self, data: memoryview) -> int:
        """Sends a part of ``data`` in one frame. Returns its bytes."""

    def recv_into(self, view: memoryview) -> int:
        """Receives payload into ``view``. Returns its bytes, 0 at the end."""


class WsprotoSocket:
    """The smallest wrapper of wsproto that MQTT needs; it could replace `WebSocket`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._inbox: deque[memoryview] = deque()
        request = events.Request(host=ADDRESS.host_and_port, target=ADDRESS.path, subprotocols=["mqtt"])
        self._sock.sendall(self._connection.send(request))
        self._connection.receive_data(self._sock.recv(BUFFER_SIZE))
        if not isinstance(next(iter(self._connection.events())), events.AcceptConnection):
            raise SystemExit("the peer accepts no WebSocket")

    def send(self, data: memoryview) -> int:
        """Sends up to ``MAX_FRAME_PAYLOAD`` bytes of ``data`` in one frame. Returns how many."""
        part = data[:MAX_FRAME_PAYLOAD]
        self._sock.sendall(self._connection.send(events.BytesMessage(data=part)))  # type: ignore[arg-type, unused-ignore]
        return len(part)

    def recv_into(self, view: memoryview) -> int:
        """Receives payload into ``view``, and answers pings. Returns its bytes, 0 at the end."""
        while not self._inbox:
            received = self._sock.recv(BUFFER_SIZE)
            if not received:
                return 0
            self._connection.receive_data(received)
            for event in self._connection.events():
                if isinstance(event, events.BytesMessage):
                    self._inbox.append(memoryview(event.data))
                elif isinstance(event, events.Ping):
                    self._sock.sendall(self._connection.send(event.response()))
                elif isinstance(event, events.CloseConnection):
                    return 0
        first = self._inbox[0]
        count = min(len(view), len(first))
        view[:count] = first[:count]
        if count == len(first):
            self._inbox.popleft()
        else:
            self._inbox[0] = first[count:]
        return count


FRAMINGS: Final[dict[str, Callable[[socket.socket], Any]]] = {
    "ours": lambda sock: WebSocket(sock, ADDRESS, TIMEOUT),
    "wsproto": WsprotoSocket,
}


@contextmanager
def peer(play: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """Our end of a socket pair.

    At the other end, a child process accepts the WebSocket and calls ``play``.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        try:
            accept(theirs)
            play(theirs)
        finally:
            os._exit(0)
    theirs.close()
    ours.settimeout(TIMEOUT)
    try:
        yield ours
    finally:
        ours.close()
        os.waitpid(child, 0)


def accept(sock: socket.socket) -> None:
    """Answers the request for a WebSocket (RFC 6455, section 4.2.2)."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += sock.recv(4096)
    found = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
    assert found is not None
    proof = b64encode(sha1(found[1] + GUID, usedforsecurity=False).digest())
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: " + proof + b"\r\n\r\n"
    )


def frame(size: int) -> bytes:
    """A frame with ``size`` bytes of payload as a broker sends it, without a mask."""
    if size < 126:
        length = bytes((size,))
    elif size < 2**16:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return b"\x82" + length + bytes(size)


def sending(framing: str, size: int, count: int) -> float:
    """Payload bytes per second until the peer has read all of them."""

    def drain(sock: socket.socket) -> None:
        buffer = bytearray(2**20)
        while sock.recv_into(buffer):
            pass

    data = memoryview(os.urandom(size))
    with peer(drain) as sock:
        stream: Framing = FRAMINGS[framing](sock)
        begun = time.perf_counter()
        for _ in range(count):
            done = 0
            while done < size:
                done += stream.send(data[done:])
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b"", "the peer has read everything and closed"
        return size * count / (time.perf_counter() - begun)


def receiving(framing: str, size: int, count: int) -> float:
    """Payload bytes per second that are read into one large buffer."""
    batch = max(1, 2**20 // size)

    def pour(sock: socket.socket) -> None:
        frames = frame(size) * batch
        for _ in range(count // batch):
            sock.sendall(frames)

    view, total = memoryview(bytearray(2**20)), count // batch * batch * size
    with peer(pour) as sock:
        stream: Framing = FRAMINGS[framing](sock)
        begun = time.perf_counter()
        done = 0
        while done < total:
            got = stream.recv_into(view)
            assert got, "the peer has closed too early"
            done += got
        return total / (time.perf_counter() - begun)


def processor() -> str:
    """The model name of this machine's processor."""
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.processor()


def main() -> None:
    """Measures all cases, and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    found: dict[str, Any] = {}
    for name, measure in (("out", sending), ("in", receiving)):
        for size, (payload, count) in CASES.items():
            turns = [{each: measure(each, payload, count) for each in FRAMINGS} for _ in range(repeat)]
            found[f"{name}, {size}"] = {
                **{
                    f"{each} MB/s": round(statistics.median(t[each] for t in turns) / 1e6, 1)
                    for each in FRAMINGS
                },
                "ratio": round(statistics.median(t["wsproto"] / t["ours"] for t in turns), 2),
            }
    versions = {"python": platform.python_version()} | {each: version(each) for each in ("wsproto", "numpy")}
    print(
        json.dumps(
            {"machine": processor(), "cores": os.cpu_count(), "versions": versions, "repeat": repeat, **found}
        )
    )


if __name__ == "__main__":
    main()
