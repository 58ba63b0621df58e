"""Runs a Mosquitto broker as a child process: finds the program and writes its configuration.

``python -m fl_shared.system.mosquitto > broker/mosquitto.conf`` writes the configuration that is in the
repository.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fl_shared.errors import RunFailed, UserError
from fl_shared.system.child_process import ChildProcess

LOOPBACK: Final = "127.0.0.1"
MAX_PACKET_SIZE: Final = 64 * 2**20
"""Bytes; a large model fits. It replaces the defaults: 2,000,000 in Mosquitto 2.1, any size in 2.0."""
MAX_QUEUED_BYTES: Final = 256 * 2**20
"""Bytes that wait for one client. Fifty updates of 4 MiB at once (`INLINE_COHORT`, `INLINE_LIMIT`) fit."""
SESSION_EXPIRY: Final = "1h"
"""How long an absent client's session stays: the shortest time that Mosquitto has. Our programs leave no session."""
PLACES: Final = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/opt/homebrew/bin")
"""Directories where packages put the program, whether or not they are on PATH."""
_HOW_TO_INSTALL: Final = """\
install it
  Debian, Ubuntu:  sudo apt-get install mosquitto
  Fedora:          sudo dnf install mosquitto
  macOS:           brew install mosquitto
  Windows:         https://mosquitto.org/download, or as on Debian in WSL
or set FL_MOSQUITTO to its path, or use a broker that is already running: --broker mqtt://HOST"""
_CONNECT: Final = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"
"""CONNECT of MQTT 3.1.1, clean session, keepalive 60 s, no client id: every broker answers it."""
_DISCONNECT: Final = b"\xe0\x00"


@dataclass(frozen=True, slots=True)
class Listener:
    """A port on which the broker listens; ``host`` None means every interface.

    ``websockets``: MQTT over WebSockets, for browsers. ``http_dir``: files that the same port serves over
    HTTP.
    """

    port: int = 1883
    host: str | None = None
    websockets: bool = False
    http_dir: Path | None = None

    def config_lines(self) -> list[str]:
        """The lines of the configuration file that define this listener."""
        lines = [f"listener {self.port}" + (f" {self.host}" if self.host else "")]
        if self.websockets:
            lines.append("protocol websockets")
            if self.host and ":" not in self.host:
                # Without this line, 2.0.11 listens on every interface, whatever the line above says.
                lines.append("socket_domain ipv4")
            if self.http_dir is not None:
                lines.append(f"http_dir {self.http_dir}")
        return lines


LAB_LISTENERS: Final = (Listener(), Listener(9001, websockets=True))
"""MQTT, and MQTT over WebSockets for browsers, on their usual ports."""


def configuration(
    listeners: Sequence[Listener] = LAB_LISTENERS,
    *,
    allow_anonymous: bool = True,
    persistence: Path | None = None,
    max_packet_size: int | None = MAX_PACKET_SIZE,
    extra: Sequence[str] = (),
    header: str = "Made by `python -m fl_shared.system.mosquitto`; broker/README.md says what each setting is for.",
) -> str:
    """The text of a configuration file for Mosquitto 2.0 and 2.1; ``broker/README.md`` says why.

    ``persistence``: the directory in which the broker saves its state; None: it saves nothing.
    ``max_packet_size``: bytes, None for the broker's default. ``extra``: further lines, verbatim. ``header``:
    the comment in the first line.
    """
    lines = [
        f"# {header}",
        *(line for one in listeners for line in one.config_lines()),
        f"allow_anonymous {_boolean(allow_anonymous)}",
        "set_tcp_nodelay true",
        f"persistence {_boolean(persistence is not None)}",
    ]
    if persistence is not None:
        lines.append(f"persistence_location {persistence}/")
    if max_packet_size is not None:
        lines.append(f"max_packet_size {max_packet_size}")
    lines += [f"max_queued_bytes {MAX_QUEUED_BYTES}", f"persistent_client_expiration {SESSION_EXPIRY}"]
    lines.append("log_timestamp_format %Y-%m-%dT%H:%M:%S")
    return "\n".join([*lines, *extra]) + "\n"


def find_mosquitto(*, places: Sequence[str] = PLACES) -> str:
    """The path of the program: FL_MOSQUITTO, or found on PATH or in ``places``. Raises `UserError`."""
    configured = os.environ.get("FL_MOSQUITTO")
    if configured:
        if path_found := shutil.which(configured):
            return path_found
        raise UserError(f"FL_MOSQUITTO is {configured!r}, which is not a program; unset it to search for one")
    # Debian installs it in a directory that is only on root's PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *places])
    if path_found := shutil.which("mosquitto", path=path):
        return path_found
    raise UserError(f"the MQTT broker mosquitto was not found: {_HOW_TO_INSTALL}")


class MosquittoChild:
    """A broker on a free port of 127.0.0.1, with its files in ``directory``; it ends with this process.

    All users of this machine may connect to it, but no other machine can. Raises `UserError` if there is no
    mosquitto and `RunFailed`, with the end of its log, if it does not answer within ``timeout`` seconds.
    ``websockets``: it also listens for browsers, at ``websocket_url``, which is None if the program was built
    without WebSockets.
    """

    def __init__(self, directory: Path, *, timeout: float = 10.0, websockets: bool = False) -> None:
        program = find_mosquitto()
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "mosquitto.log"
        deadline = time.monotonic() + timeout
        while True:
            self.port = free_port()
            listeners = [Listener(self.port, LOOPBACK)]
            self.websocket_url: str | None = None
            if websockets:
                listeners.append(Listener(free_port(), LOOPBACK, websockets=True))
                self.websocket_url = f"ws://{LOOPBACK}:{listeners[-1].port}/mqtt"
            self._log.write_bytes(b"")
            file = directory / "mosquitto.conf"
            file.write_text(configuration(listeners))
            self._process = ChildProcess([program, "-c", str(file)], self._log)
            if self._wait_until_ready(deadline):
                return
            self._process.stop()
            log_text = self.log_tail()
            # Without WebSockets, the broker still serves all clients but browsers.
            has_no_websockets = websockets and "ebsockets support not available" in log_text
            websockets = websockets and not has_no_websockets
            # Another process may have taken the port since `free_port` found it free.
            is_port_taken = "already in use" in log_text or "create websockets listener" in log_text
            if time.monotonic() > deadline or not (has_no_websockets or is_port_taken):
                raise RunFailed(
                    f"the broker {program} does not start: {self.log_tail() or 'its log is empty'}"
                )

    @property
    def url(self) -> str:
        """The broker's address for clients on this machine, ``mqtt://127.0.0.1:PORT``."""
        return f"mqtt://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the supervisor process, whose child the broker is."""
        return self._process.pid

    def poll(self) -> int | None:
        """The broker's exit status, or None while it runs."""
        return self._process.poll()

    def log_tail(self, lines: int = 10) -> str:
        """The last ``lines`` lines of the broker's log."""
        return self._process.log_tail(lines)

    def stop(self) -> None:
        """Ends the broker, first with SIGTERM, and waits for its end."""
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self, deadline: float) -> bool:
        while time.monotonic() < deadline and self._process.poll() is None:
            # The log is checked first: if the port was already taken, another broker would answer.
            if is_running(self._log) and accepts_connect(LOOPBACK, self.port):
                return True
            time.sleep(0.01)
        return False


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago; another process may take it."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_running(log: Path) -> bool:
    """Whether the broker's log says that its listeners are open (versions 1.5 to 2.1 write this)."""
    lines = log.read_text(errors="replace").splitlines()
    return any(" running" in line and "mosquitto version" in line for line in lines)


def accepts_connect(host: str, port: int, timeout: float = 1.0) -> bool:
    """Whether a server at this address answers CONNECT within ``timeout`` seconds, even with a refusal."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout) as probe:
        probe.sendall(_CONNECT)
        if probe.recv(1)[:1] == b"\x20":
            probe.sendall(_DISCONNECT)
            return True
    return False


def _boolean(value: bool) -> str:
    return "true" if value else "false"


if __name__ == "__main__":
    sys.stdout.write(configuration())
