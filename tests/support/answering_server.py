"""A server that gives every client the same bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Final

CONNACK_WITHOUT_SHARED: Final = b"\x20\x05\x00\x00\x02\x2a\x00"
"""Success, and Shared Subscription Available 0 (MQTT 5, 3.2.2.3.13)."""


@contextlib.contextmanager
def one_answer(sends: bytes | None, heard: list[bytes] | None = None) -> Iterator[int]:
    """A server that answers the first bytes of each client with ``sends`` (b"": closes, None: says nothing).

    They are appended to ``heard``.
    """
    first = [] if heard is None else heard
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        held: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    held.append(client)
                    first.append(client.recv(1000))
                    if sends:
                        client.sendall(sends)
                    elif sends is not None:
                        client.close()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        for client in held:
            client.close()
