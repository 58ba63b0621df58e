"""Measures the physical limit of a round: its bytes over loopback sockets, and a float32 sum. No broker.

There are a server process and a client process, with one connection for each edge. In each round, the server
sends the model to every edge, and every edge sends as many bytes back, which the server adds up in float32.
Both use blocking sockets and buffers that are allocated once. Other benchmarks call this, to measure their
limit in the same run.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time

import numpy as np

from fl_shared.tensors.encodings.float32 import FLOAT32


def _receive(sock: socket.socket, into: memoryview) -> None:
    while into:
        into = into[sock.recv_into(into) :]


def _client(port: int, edges: int, size: int, rounds: int) -> None:
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(edges)]
    for sock in sockets:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(size))
    update = memoryview(bytes(size))
    for _ in range(rounds):
        for sock in sockets:
            _receive(sock, buffer)
        for sock in sockets:
            sock.sendall(update)


def seconds_per_round(edges: int, values: int, rounds: int = 7) -> float:
    """Median seconds of a round with ``edges`` downloads and uploads of ``values`` float32 values each."""
    size = FLOAT32.size(values)
    with socket.create_server(("127.0.0.1", 0), backlog=edges) as server:
        port = server.getsockname()[1]
        client = subprocess.Popen(
            [sys.executable, __file__, str(port), str(edges), str(size), str(rounds + 1)]
        )
        sockets = [server.accept()[0] for _ in range(edges)]
    for sock in sockets:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    model = np.zeros(values, np.float32).data.cast("B")
    received = np.empty(values, np.float32)
    total = np.zeros(values, np.float32)
    block = 32_768
    scratch = np.empty(block, np.float32)
    taken = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        for sock in sockets:
            sock.sendall(model)
        for sock in sockets:
            _receive(sock, received.data.cast("B"))
            for start in range(0, values, block):
                piece = received[start : start + block]
                np.multiply(piece, np.float32(0.1), out=scratch[: len(piece)])
                total[start : start + block] += scratch[: len(piece)]
        taken.append(time.perf_counter() - started)
    for sock in sockets:
        sock.close()
    client.wait(10)
    return statistics.median(taken[1:])  # the first one includes the first access to the memory's pages


if __name__ == "__main__":
    _client(*(int(argument) for argument in sys.argv[1:5]))
