"""A process that has imported modules and forks a process for each request: Python and our imports cost two CPU
seconds, and torch costs five.

`program_server` starts one for each kind in `IMPORTED`. It imports with the first request. A forked process has its
own session, arguments, environment and files, and the default handlers of signals. Only its command line in ``/proc``
is that of the server. Between it and the server stands a process that waits for its end. A server ends with the test
process and all programs that could send it requests.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

SCRIPTS = {"fl-aggregator": "fl_aggregator.cli.main", "fl-edge": "fl_edge.cli", "fl-mqtt": "fl_mqtt.cli.main"}
"""The modules of the console scripts, each with a ``main``."""
PROGRAMS = (
    "tests.support.crashing_aggregator",
    "tests.support.compacting_aggregator",
    "tests.support.dying_relay",
    "tests.support.killed_before_it_serves",
    "tests.support.sleeping_aggregator",
)
"""Modules of the tests that are programs, each with a ``main``; they are imported in the forked process."""
WORKER = "fl_edge.workers.worker"
WITH_TORCH = "workers with torch"
OF_WORKERS = ("fl_edge.tasks.registry", "fl_edge.training.synthetic_executor", WORKER)
IMPORTED = {
    "programs": (
        *SCRIPTS.values(),
        "fl_aggregator.server.launch",
        "fl_aggregator.server.resume",
        "fl_aggregator.tools.remote.follower",
        "fl_aggregator.monitoring.terminal.display",
        "fl_edge.runtime.fleet",
        "fl_mqtt.simulation.local",
        "fl_mqtt.simulation.sweep_cli",
        "fl_mqtt.simulation.virtual.cli",
        "encodings.idna",
        "tests.support.forked_children",
    ),
    "workers": OF_WORKERS,
    WITH_TORCH: ("fl_edge.training.torch_executor", "fl_edge.tasks.digits", *OF_WORKERS),
}
"""What each server imports for its processes, which would import it anyway: our programs and the processes of edges;
training processes that import no torch as they start; and the others."""
MAX_REQUEST = 2**17
MAX_FILES = 9
_PR_SET_NAME = 15


class Requests:
    """Those of all connections to a server: of the one that it begins with, and of whoever connects to its socket.

    They end with the last connection.
    """

    def __init__(self, first: socket.socket, listener: socket.socket | None) -> None:
        self._selector = selectors.PollSelector()
        self._connections = 0
        self._add(first)
        if listener is not None:
            self._selector.register(listener, selectors.EVENT_READ, data=listener.accept)

    def _add(self, connection: socket.socket) -> None:
        self._selector.register(connection, selectors.EVENT_READ)
        self._connections += 1

    def __iter__(self) -> Iterator[tuple[bytes, list[int]]]:
        """The text of each, and its open files."""
        while self._connections:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._add(key.data()[0])
                    continue
                connection = cast(socket.socket, key.fileobj)
                message, files, _, _ = socket.recv_fds(connection, MAX_REQUEST, MAX_FILES)
                if message:
                    yield message, files
                else:
                    self._selector.unregister(connection)
                    self._connections -= 1
                    connection.close()

    def close(self) -> None:
        """In a forked process."""
        for key in list(self._selector.get_map().values()):
            cast(socket.socket, key.fileobj).close()
        self._selector.close()


def _serve(requests: Requests, kind: str) -> Callable[[], object]:
    """Forks until there are no more requests; returns, in a forked process, what that is to run."""
    waiting = 0
    for number, (message, files) in enumerate(requests):
        if number == 0:
            _prepare(kind)
        while waiting and os.waitpid(-1, os.WNOHANG)[0]:
            waiting -= 1
        if os.fork():
            waiting += 1
            for file in files:
                os.close(file)
            continue
        requests.close()
        if pid := os.fork():
            _report(pid, files)
        return _become(json.loads(message), files)
    sys.exit()


def _report(pid: int, files: Sequence[int]) -> NoReturn:
    """Reports the exit code of the process at its end. Keeps open nothing that others wait to see closed."""
    _, _, _, ended, *_ = files
    for number in (0, 1, 2, *files):
        if number != ended:
            os.close(number)
    _, status = os.waitpid(pid, 0)
    os.write(ended, b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(request: dict[str, Any], files: Sequence[int]) -> Callable[[], object]:
    os.setsid()
    targets = (0, 1, 2, *request["kept"])
    least = max(targets) + 1  # else one that is put aside could be where another one belongs
    aside = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, least) for file in files]
    for file in files:
        os.close(file)
    *standard, ended = aside[:4]
    servers, kept = aside[4 : 4 + len(IMPORTED)], aside[4 + len(IMPORTED) :]
    for file, target in zip((*standard, *kept), targets, strict=True):
        os.dup2(file, target)
        os.close(file)
    os.write(ended, b"%d\n" % os.getpid())
    os.close(ended)
    os.chdir(request["directory"])
    sys.path[1:1] = added(request["environment"].get("PYTHONPATH", ""), os.environ.get("PYTHONPATH", ""))
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["name"]:
        ctypes.CDLL(None).prctl(_PR_SET_NAME, request["name"].encode())
    command = request["command"]
    if command[0] == sys.executable and command[1] == "-P":
        for one in servers:
            os.close(one)
        return _module(command[1:])
    from tests.support.forked_children import popen, supervise

    sockets = dict(zip(IMPORTED, (socket.socket(fileno=one) for one in servers), strict=True))
    subprocess.Popen = popen(sockets)  # type: ignore[assignment,misc]
    if command[0] != sys.executable or command[2] in PROGRAMS:
        return _program(command)
    return partial(supervise, command[command.index("--") :], _module)


def added(path: str, servers: str) -> list[str]:
    """The directories that a ``PYTHONPATH`` has before those of a server's; none if it lacks those."""
    both = list(filter(None, path.split(os.pathsep)))
    own = list(filter(None, servers.split(os.pathsep)))
    return both[: len(both) - len(own)] if both[len(both) - len(own) :] == own else []


def _program(command: Sequence[str]) -> Callable[[], object]:
    """The ``main`` of a program of ours, or of a module of the tests."""
    ours = command[0] != sys.executable
    module = importlib.import_module(SCRIPTS[Path(command[0]).name] if ours else command[2])
    sys.argv[:] = command if ours else command[2:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    importlib.invalidate_caches()
    run: Callable[[], object] = module.main
    return run


def _module(options: Sequence[str]) -> Callable[[], object]:
    """What Python runs with the options ``-m MODULE ARGS…``, perhaps after ``-P``."""
    if options[0] == "-P":
        options = options[1:]
        del sys.path[0]
    else:
        sys.path[0] = str(Path.cwd())
    _, module, *arguments = options
    sys.argv[:] = ["-m", *arguments]
    importlib.invalidate_caches()
    return partial(runpy.run_module, module, run_name="__main__", alter_sys=True)


def _prepare(kind: str) -> None:
    """Imports what processes of this kind need."""
    for module in IMPORTED[kind]:
        try:
            importlib.import_module(module)
        except ImportError:
            if kind != WITH_TORCH:  # a worker says itself that there is none
                raise
    sys.modules.pop(WORKER, None)  # each runs it as its main module
    assert kind == WITH_TORCH or "torch" not in sys.modules, "an aggregator and a light edge have none"
    assert threading.active_count() == 1
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.freeze()


def main(kind: str, *numbers: int) -> None:
    """``numbers``: of the first connection, and perhaps of the socket that accepts others."""
    first, listener, *_ = *(socket.socket(fileno=number) for number in numbers), None
    assert first is not None
    _serve(Requests(first, listener), kind)()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
