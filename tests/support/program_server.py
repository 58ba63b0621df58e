"""A process that has imported our programs and forks one for each request: Python and the imports cost two CPU seconds.

The forked process differs little from one that a console script begins. It has its own session, arguments, environment
and files, and the default handlers of signals. Only its command line in ``/proc`` is that of the server. Between it and
the server stands a process that waits for its end. The server ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
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
from typing import IO, Any, NoReturn

SCRIPTS = {"fl-aggregator": "fl_aggregator.cli.main", "fl-edge": "fl_edge.cli"}
"""The modules of the console scripts, each with a ``main``."""
PROGRAMS = ("tests.support.crashing_aggregator", "tests.support.compacting_aggregator")
"""Modules that ``python -m`` runs, each with a ``main``; they are imported in the forked process."""
MODULES = (
    *SCRIPTS.values(),
    "fl_aggregator.server.launch",
    "fl_aggregator.server.resume",
    "fl_aggregator.tools.remote.follower",
    "fl_aggregator.monitoring.terminal.display",
    "fl_edge.runtime.fleet",
    "fl_mqtt.simulation.local",
)
"""What a program would import anyway. None of it imports torch, which an aggregator must not have."""
OF_AN_INTERPRETER = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "OMP_", "MKL_", "OPENBLAS_")
"""How the names of variables begin that decide how Python starts."""
ENVIRONMENT = dict(os.environ)
"""That of the server: no test has changed it yet."""
MAX_REQUEST = 2**17


class ForkedProgram:
    """A program that the server has forked, with the members of a ``subprocess.Popen`` that `programs` needs."""

    def __init__(self, pid: int, ended: IO[bytes]) -> None:
        self.pid = pid
        self._ended = ended
        self._awaited = threading.Thread(target=self._wait, daemon=True)
        self.returncode: int | None = None
        self._awaited.start()

    def _wait(self) -> None:
        with self._ended:
            self.returncode = int(self._ended.read())

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

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ProgramServer:
    """The server of this process, started by `server`."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.program_server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=Path(__file__).parents[2],
                env=ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def can_start(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether such a program may be forked: it is one of ours, in the environment that the server began in."""
        return module_of(command) is not None and of_an_interpreter(environment) == of_an_interpreter(
            ENVIRONMENT
        )

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        out: IO[bytes],
        err: IO[bytes],
        cwd: Path | None = None,
    ) -> ForkedProgram:
        reading, writing = os.pipe()
        request = {
            "command": list(command),
            "environment": dict(environment),
            "directory": str(cwd or Path.cwd()),
        }
        with Path(os.devnull).open("rb") as nothing:
            files = [nothing.fileno(), out.fileno(), err.fileno(), writing]
            socket.send_fds(self._requests, [json.dumps(request).encode()], files)
        os.close(writing)
        ended = os.fdopen(reading, "rb", buffering=0)
        pid = b""
        while not pid.endswith(b"\n"):
            more = ended.read(1)
            assert more, "the server of programs has died"
            pid += more
        return ForkedProgram(int(pid), ended)


@cache
def server() -> ProgramServer:
    """The server of this process, which is started with the first use."""
    return ProgramServer()


def module_of(command: Sequence[str]) -> str | None:
    """The module whose ``main`` the command runs; null if it is none of ours."""
    if command[0] == sys.executable:
        return command[2] if command[2] in PROGRAMS else None
    return SCRIPTS.get(Path(command[0]).name)


def of_an_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(OF_AN_INTERPRETER)}


def _serve(requests: socket.socket) -> Callable[[], None]:
    """Forks until there are no more requests; returns, in a forked process, what that is to run."""
    waiting = 0
    while True:
        message, files, _, _ = socket.recv_fds(requests, MAX_REQUEST, 4)
        while waiting and os.waitpid(-1, os.WNOHANG)[0]:
            waiting -= 1
        if not message:
            sys.exit()
        if os.fork():
            waiting += 1
            for file in files:
                os.close(file)
            continue
        requests.close()
        *standard, ended = files
        if pid := os.fork():
            _report(pid, ended)
        os.close(ended)
        return _become(json.loads(message), standard)


def _report(pid: int, ended: int) -> NoReturn:
    """Reports the process id at once, and the exit code of the process at its end."""
    for number in range(3):
        os.close(number)
    os.write(ended, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(ended, b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(request: dict[str, Any], standard: Sequence[int]) -> Callable[[], None]:
    os.setsid()
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    command = request["command"]
    module = module_of(command)
    assert module is not None
    run: Callable[[], None] = importlib.import_module(module).main
    sys.argv[:] = command[2:] if command[0] == sys.executable else command
    sys.path[0] = str(Path(sys.argv[0]).parent)
    importlib.invalidate_caches()
    return run


if __name__ == "__main__":
    for module in MODULES:
        importlib.import_module(module)
    assert "torch" not in sys.modules
    assert threading.active_count() == 1
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))()
