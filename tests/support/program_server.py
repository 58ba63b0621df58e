"""Programs of ours that servers (`fork_server`) fork. To begin them would cost most of their time.

A forked program differs little from one that a console script begins, and its edges and training processes are
forked as well (`forked_children`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from tests.support.fork_server import IMPORTED, PROGRAMS, SCRIPTS, added

OF_AN_INTERPRETER = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "OMP_", "MKL_", "OPENBLAS_")
"""How the names of variables begin that decide how Python starts."""
SHARED = "TEST_PROGRAM_SERVERS"
"""The variable of the environment that says where the servers are that all processes of pytest-xdist share."""
ENVIRONMENT = dict(os.environ)
"""That of the servers: no test has changed it yet."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""What training processes have besides."""


class ForkedProgram:
    """A program that a server has forked, with the members of a ``subprocess.Popen`` that are needed.

    ``wait``: waits for its end and returns the exit code.
    """

    def __init__(self, pid: int, wait: Callable[[], int]) -> None:
        self.pid = pid
        self.stdin: IO[bytes] | None = None
        self.returncode: int | None = None
        self._wait = wait
        self._awaited = threading.Thread(target=self._await, daemon=True)
        self._awaited.start()

    def _await(self) -> None:
        self.returncode = self._wait()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._awaited.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked program", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # its end may not have been reported yet
            if self.returncode is None:
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ProgramServer:
    """The servers of this process, started by `server`."""

    def __init__(self, shared: Path | None = None) -> None:
        """``shared``: where servers are that another process has started with `share`."""
        self._processes: list[subprocess.Popen[bytes]] = []
        self.sockets = {kind: self._connect(kind, shared) for kind in IMPORTED}

    def _connect(self, kind: str, shared: Path | None) -> socket.socket:
        if shared is not None:
            ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.connect(str(shared / kind))
            return ours
        ours, process = started(kind)
        self._processes.append(process)
        return ours

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def can_start(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether such a program may be forked: it is one of ours, in the environment that the servers began in.

        There may be more modules, but none instead of what the servers have imported.
        """
        ours = command[2] in PROGRAMS if command[0] == sys.executable else Path(command[0]).name in SCRIPTS
        return ours and of_an_interpreter(without_additions(environment)) == of_an_interpreter(ENVIRONMENT)

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        out: IO[bytes],
        err: IO[bytes],
        cwd: Path | None = None,
    ) -> ForkedProgram:
        request = {
            "command": list(command),
            "environment": dict(environment),
            "directory": str(cwd or Path.cwd()),
            "name": f"program {os.getpid()}",
            "kept": [],
        }
        with Path(os.devnull).open("rb") as nothing:
            standard = [nothing.fileno(), out.fileno(), err.fileno()]
            return ask("programs", self.sockets, request, standard)


def ask(
    kind: str,
    servers: Mapping[str, socket.socket],
    request: Mapping[str, Any],
    standard: Sequence[int],
    kept: Sequence[int] = (),
) -> ForkedProgram:
    """Sends a request to the server of that kind. The process gets the sockets of all, for its own requests."""
    reading, writing = os.pipe()
    files = [*standard, writing, *(one.fileno() for one in servers.values()), *kept]
    socket.send_fds(servers[kind], [json.dumps(request).encode()], files)
    os.close(writing)
    ended = os.fdopen(reading, "rb", buffering=0)
    pid = b""
    while not pid.endswith(b"\n"):
        more = ended.read(1)
        assert more, "the server of programs has died"
        pid += more

    def wait() -> int:
        with ended:
            return int(ended.read())

    return ForkedProgram(int(pid), wait)


@cache
def server() -> ProgramServer:
    """The servers of this process, which are started with the first use, or those of `share`."""
    shared = os.environ.get(SHARED)
    return ProgramServer(Path(shared) if shared else None)


def share(directory: Path) -> list[socket.socket]:
    """Starts servers for all processes of pytest-xdist, which `server` finds; returns what keeps them alive."""
    connections = []
    for kind in IMPORTED:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(directory / kind))
            listener.listen(64)
            connections.append(started(kind, listener)[0])
    os.environ[SHARED] = str(directory)
    return connections


def started(
    kind: str, listener: socket.socket | None = None
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A server, and a connection to it. ``listener``: accepts others."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        given = [theirs.fileno(), *([] if listener is None else [listener.fileno()])]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", kind, *map(str, given)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
            env=ENVIRONMENT if kind == "programs" else {**ENVIRONMENT, **ONE_THREAD},
            pass_fds=given,
            start_new_session=True,
        )
    return ours, process


def without_additions(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment without those directories of modules that are searched before the servers' and hide nothing."""
    path, servers = environment.get("PYTHONPATH", ""), ENVIRONMENT.get("PYTHONPATH", "")
    more = added(path, servers)
    if not more or not all(map(_hides_nothing, more)):
        return environment
    rest = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    return {**rest, "PYTHONPATH": servers} if servers else rest


def _hides_nothing(directory: str) -> bool:
    names = {path.stem for path in Path(directory).glob("*.py")}
    if "sitecustomize" in names:
        return False  # it changes what Python finds
    names |= {path.parent.name for path in Path(directory).glob("*/__init__.py")}
    found = [spec for spec in map(importlib.util.find_spec, names) if spec is not None]
    return all(Path(spec.origin or "/").is_relative_to(directory) for spec in found)


def of_an_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(OF_AN_INTERPRETER)}
