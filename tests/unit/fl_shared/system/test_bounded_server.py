"""Clients that connect and stay silent keep neither others out nor more file descriptors than a few."""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from socketserver import BaseRequestHandler, TCPServer

import pytest

from fl_aggregator.monitoring.tracking.prometheus import Prometheus
from fl_aggregator.tools.dashboard.address import WebSocketAddress
from fl_aggregator.tools.dashboard.server import DashboardServer
from fl_shared.system.bounded_server import MAX_CONNECTIONS, REQUEST_TIMEOUT, BoundedServer
from fl_shared.system.mosquitto import LOOPBACK, free_port


@contextlib.contextmanager
def dashboard() -> Iterator[str]:
    with DashboardServer(WebSocketAddress.parse("ws://h:9001/mqtt"), "fl", (LOOPBACK, 0)) as server:
        yield server.url


@contextlib.contextmanager
def metrics() -> Iterator[str]:
    port = free_port()
    served = Prometheus(LOOPBACK, port, {})
    try:
        yield f"http://{LOOPBACK}:{port}/metrics"
    finally:
        served.close(None)


@pytest.mark.parametrize("serve", [dashboard, metrics])
def test_silent_connections_end_and_others_are_served(
    serve: Callable[[], AbstractContextManager[str]],
) -> None:
    with serve() as url, ExitStack() as stack:
        port = int(url.split(":")[2].partition("/")[0])
        silent = [
            stack.enter_context(socket.create_connection((LOOPBACK, port), REQUEST_TIMEOUT / 2))
            for _ in range(3 * MAX_CONNECTIONS)
        ]
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.status == 200
        # They are accepted in turn, so that all these were accepted before the request.
        ended = silent[: 2 * MAX_CONNECTIONS]
        assert all(connection.recv(1) == b"" for connection in ended)


class Server(BoundedServer, TCPServer):
    """Says nothing."""


def test_many_who_come_at_once_need_not_try_again() -> None:
    """Nobody is accepted meanwhile."""
    with Server((LOOPBACK, 0), BaseRequestHandler) as server, ExitStack() as stack:
        for _ in range(3 * MAX_CONNECTIONS):
            address = (LOOPBACK, server.server_address[1])
            stack.enter_context(socket.create_connection(address, REQUEST_TIMEOUT / 2))
