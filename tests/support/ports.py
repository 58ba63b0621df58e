"""Ports for servers that are started later."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from fl_shared.system.mosquitto import LOOPBACK

_FIRST = 11_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_END = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
_GIVEN: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses, and that nobody is given by chance before its server starts.

    The kernel takes ports for outgoing connections, and for servers that leave it the choice, from a range
    that starts above it. Each call returns another port.
    """
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(_FIRST, _END)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port
