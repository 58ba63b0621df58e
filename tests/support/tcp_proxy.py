"""A TCP proxy between a program and its broker that can cut, stall, hold, delay and slow down the traffic."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from fl_shared.mqtt.address import BrokerAddress
from fl_shared.system.mosquitto import LOOPBACK

T = TypeVar("T")

PIECE: Final = 64 * 1024
BUFFER: Final = 64 * 1024
"""Bytes of each of the proxy's socket buffers: bytes in them are beyond the proxy's faults."""
TAIL: Final = 64
"""Bytes of a piece that are searched again with the next one: more than any marker has."""
PATIENCE: Final = 10.0
"""Seconds that a call from another thread waits for the proxy's thread."""
SEGMENT: Final = 1460
"""Bytes of a TCP segment."""
RETRANSMISSION: Final = 1.0
"""Seconds that a lost segment costs."""
PINGRESP: Final = 0xD0
"""First byte of the packet (MQTT 5, section 3.13)."""


class PacketStarts:
    """Finds where MQTT packets begin in a stream that comes in pieces of any size."""

    def __init__(self) -> None:
        self._left = 0
        self._header: bytearray | None = None

    def feed(self, piece: bytes) -> list[int]:
        """The offsets in ``piece`` at which a packet begins."""
        starts = []
        at = 0
        while at < len(piece):
            if self._left:
                taken = min(self._left, len(piece) - at)
                self._left -= taken
                at += taken
                continue
            if self._header is None:
                starts.append(at)
                self._header = bytearray()
            else:
                self._header.append(piece[at])
                if not piece[at] & 0x80:
                    self._left = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(self._header))
                    self._header = None
            at += 1
        return starts


@dataclass(slots=True)
class Traffic:
    """Bytes that have gone through: ``up`` from the program to the broker, ``down`` the other way; PINGRESP packets."""

    up: int = 0
    down: int = 0
    pings: int = 0


@dataclass(slots=True, eq=False)
class _Pipe:
    """One direction of one connection."""

    direction: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    starts: PacketStarts = field(default_factory=PacketStarts)
    tail: bytes = b""
    """The end of what was sent: a marker may begin in it."""


class Held:
    """Stops a direction of each connection in which ``marker`` comes, until `release`.

    The receiver gets no complete packet that has the marker in it before its end, nor what comes behind it.
    """

    def __init__(self, direction: str, marker: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.direction = direction
        self.marker = marker
        self.reached = threading.Event()
        self.released = asyncio.Event()
        self._loop = loop

    def wait(self, seconds: float = 120.0) -> None:
        assert self.reached.wait(seconds), f"{self.marker!r} did not come {self.direction} within {seconds} s"

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self.released.set)


class TcpProxy:
    """Forwards a free port of 127.0.0.1 to ``target`` there, until the end of its ``with`` block.

    All methods may be called from any thread; they return when they have taken effect.
    """

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self._target = target
        self._chance = random.Random(seed)
        self.traffic = Traffic()
        self._rate: float | None = None
        self._share, self._pause = 0.0, (0.0, 0.0)
        self._latency = self._loss = 0.0
        self._is_cut = False
        self._held: list[Held] = []
        self._pipes: set[asyncio.Task[None]] = set()
        self._sockets: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._thread.start()
        listening = socket.create_server((LOOPBACK, 0))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.port: int = listening.getsockname()[1]
        self._server = self._run(asyncio.start_server(self._serve, sock=listening))

    @property
    def url(self) -> str:
        return f"mqtt://{LOOPBACK}:{self.port}"

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress(LOOPBACK, self.port)

    @property
    def rate(self) -> float | None:
        """The rate that `limit` has set, in bytes per second; None for no limit."""
        return self._rate

    # --- faults -------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Resets all connections, and new ones as soon as they come, until `restore`."""
        self._do(lambda: self._set_cut(True))

    def restore(self) -> None:
        self._do(lambda: self._set_cut(False))

    def stall(self) -> None:
        """Keeps connections open, but forwards nothing in either direction, until `flow`."""
        self._do(self._flowing.clear)

    def flow(self) -> None:
        self._do(self._flowing.set)

    def hold(self, direction: str, marker: str) -> Held:
        """Holds what comes ``up`` or ``down`` from ``marker`` on, a text such as a topic, on each connection."""
        held = Held(direction, marker.encode(), self._loop)
        self._do(lambda: self._held.append(held))
        return held

    def limit(self, rate: float | None) -> None:
        """Limits each direction of each connection to ``rate`` bytes per second; None for no limit."""
        self._do(lambda: setattr(self, "_rate", rate))

    def latency(self, seconds: float, loss: float = 0.0) -> None:
        """Bytes come ``seconds`` later, however many are under way. A share of segments stops them for a second.

        So long a lost segment takes until TCP sends it again (RFC 6298: its timeout is at least a second).
        """
        self._do(lambda: self._set_latency(seconds, loss))

    def delay(self, share: float, least: float = 0.2, most: float = 0.5) -> None:
        """Delays a ``share`` (0 to 1) of MQTT packets by ``least`` to ``most`` seconds.

        The order stays the same, as in TCP: later packets wait behind a delayed one.
        """
        self._do(lambda: self._set_delay(share, (least, most)))

    # --- on the proxy's thread ----------------------------------------------------------------------------

    def _set_cut(self, cut: bool) -> None:
        self._is_cut = cut
        if cut:
            for writer in self._sockets:
                _reset(writer)

    def _set_delay(self, share: float, pause: tuple[float, float]) -> None:
        self._share, self._pause = share, pause

    def _set_latency(self, seconds: float, loss: float) -> None:
        self._latency, self._loss = seconds, loss

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sockets.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            if self._is_cut:
                _reset(writer)
                return
            their_reader, there = await asyncio.open_connection(LOOPBACK, self._target)
            self._sockets.add(there)
            for one in (writer, there):
                _prepare(one)
            await self._both(_Pipe("up", reader, there), _Pipe("down", their_reader, writer))
        except OSError:
            _reset(writer)
        finally:
            for each in (writer, there):
                if each is not None:
                    each.close()
                    self._sockets.discard(each)

    async def _both(self, up: _Pipe, down: _Pipe) -> None:
        """Forwards in both directions until one side ends: MQTT has no half-closed connections."""
        tasks = {self._loop.create_task(self._pass_on(pipe)) for pipe in (up, down)}
        self._pipes |= tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._pipes -= tasks

    async def _pass_on(self, pipe: _Pipe) -> None:
        with contextlib.suppress(OSError):
            while piece := await pipe.reader.read(self._piece()):
                begin = 0
                for start in pipe.starts.feed(piece):
                    self.traffic.pings += piece[start] == PINGRESP
                    if self._share and self._chance.random() < self._share:
                        await self._send(pipe, piece[begin:start])
                        begin = start
                        await asyncio.sleep(self._chance.uniform(*self._pause))
                await self._send(pipe, piece[begin:])

    def _piece(self) -> int:
        """The bytes of a twentieth of a second, so that a slow link is evenly slow."""
        return PIECE if self._rate is None else max(1, min(PIECE, int(self._rate / 20)))

    async def _send(self, pipe: _Pipe, piece: bytes) -> None:
        if not piece:
            return
        await self._flowing.wait()
        await self._wait_at_markers(pipe, piece)
        if self._rate is not None:
            await asyncio.sleep(len(piece) / self._rate)
        if self._loss and self._chance.random() < 1 - (1 - self._loss) ** (len(piece) / SEGMENT):
            await asyncio.sleep(RETRANSMISSION)
        if self._latency:
            self._loop.call_later(self._latency, self._write, pipe, piece)
        else:
            self._write(pipe, piece)
            await pipe.writer.drain()

    def _write(self, pipe: _Pipe, piece: bytes) -> None:
        if not pipe.writer.is_closing():
            pipe.writer.write(piece)
            setattr(self.traffic, pipe.direction, getattr(self.traffic, pipe.direction) + len(piece))

    async def _wait_at_markers(self, pipe: _Pipe, piece: bytes) -> None:
        """A piece is held whole: of the packets in it, none is sent before its time."""
        seen = pipe.tail + piece
        pipe.tail = seen[-TAIL:]
        for held in tuple(self._held):
            if held.direction == pipe.direction and not held.released.is_set() and held.marker in seen:
                held.reached.set()
                await held.released.wait()

    # --- from outside -------------------------------------------------------------------------------------

    def _do(self, call: Callable[[], None]) -> None:
        async def calling() -> None:
            call()

        self._run(calling())

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE)

    def close(self) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        self._set_cut(True)
        for task in self._pipes:
            task.cancel()
        await asyncio.sleep(0.01)  # they let go of their sockets

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _prepare(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    writer.transport.set_write_buffer_limits(high=PIECE)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Resets a connection, as a router does after a cable is cut: bytes in transit are lost."""
    connection: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
