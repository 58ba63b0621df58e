"""A server with a thread for each connection, which bounds how many there are and how long each may be silent."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections import OrderedDict
from socketserver import ThreadingMixIn
from typing import Any, Final

LOG: Final = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 32
REQUEST_TIMEOUT: Final = 10.0
"""Seconds in which a client must send the next bytes of its request; request handlers set it as ``timeout``."""


class BoundedServer(ThreadingMixIn):
    """Mixed into a ``socketserver.TCPServer``, serves at most ``MAX_CONNECTIONS`` clients at a time.

    One more ends the oldest connection: clients that stay silent take neither file descriptors nor turns.
    """

    daemon_threads = True
    # Closing does not wait for a request that hangs: its thread is a daemon and holds no resource.
    block_on_close = False
    # Longer than socketserver's 5: what finds the queue full tries again only after a second, then two, and so on.
    request_queue_size = 4 * MAX_CONNECTIONS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._lock = threading.Lock()
        self._connections: OrderedDict[socket.socket, None] = OrderedDict()
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts the thread of a connection, and ends the oldest one if there are too many."""
        with self._lock:
            self._connections[request] = None
            if len(self._connections) > MAX_CONNECTIONS:
                oldest, _ = self._connections.popitem(last=False)
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)  # type: ignore[misc]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Logs, for debugging only, what ended a request: a client may leave in the middle of it."""
        LOG.debug("a request from %s was not answered", client_address, exc_info=True)
