"""Forks the processes that a forked program starts: the edges of a simulation, and the processes that train.

There, `popen` replaces ``subprocess.Popen``. Whatever is not ours begins as it would without.
A forked process has a name that says for whom it runs, by which `programs.descendants` finds it: its parent in
``/proc`` is a server.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fl_shared.system import child_process
from tests.support.fork_server import WITH_TORCH
from tests.support.held_worker import HELD
from tests.support.program_server import (
    ENVIRONMENT,
    ONE_THREAD,
    ForkedProgram,
    ask,
    of_an_interpreter,
    without_additions,
)

SUPERVISED = [sys.executable, "-I", "-S", child_process.__file__, "--", sys.executable, "-m"]
"""How a `child_process.ChildProcess` begins whose program is a Python module."""
WORKER = [sys.executable, "-P", "-m"]
"""How a training process begins."""


def popen(servers: Mapping[str, socket.socket]) -> type[subprocess.Popen[bytes]]:
    """A ``subprocess.Popen`` that begins ours by requests to the servers, whose sockets are given by kind."""

    class Popen(subprocess.Popen[bytes]):
        def __new__(cls, command: Sequence[str], **options: Any) -> Any:
            forked = _fork(list(command), servers, **options)
            return super().__new__(cls) if forked is None else forked

    return Popen


def _fork(
    command: list[str],
    servers: Mapping[str, socket.socket],
    *,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    env: dict[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    **_: Any,
) -> ForkedProgram | None:
    environment = dict(os.environ) if env is None else env
    if command[: len(WORKER)] == WORKER:
        with_torch = not {"--light", "--cold"} & set(command)
        server, name = WITH_TORCH if with_torch else "workers", "worker"
        if HELD in environment:
            command = [*WORKER, "tests.support.held_worker", *command[len(WORKER) + 1 :]]
    elif command[: len(SUPERVISED)] == SUPERVISED:
        server, name = "programs", "edges"
    else:
        return None
    if _interpreter(environment) != _interpreter(ENVIRONMENT):
        return None
    ours = None
    if stdin == subprocess.PIPE:
        stdin, ours = os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR)
    files: list[int] = []
    for number, given in enumerate((stdin, stdout, stderr)):
        match given:
            case None:
                files.append(number)
            case subprocess.DEVNULL:
                files.append(nothing)
            case subprocess.STDOUT:
                files.append(files[1])
            case _:
                files.append(given if isinstance(given, int) else given.fileno())
    try:
        forked = ask(
            server,
            servers,
            {
                "command": command,
                "environment": environment,
                "directory": os.getcwd(),  # noqa: PTH109
                "name": f"{name} {os.getpid()}",
                "kept": list(pass_fds),
            },
            files,
            pass_fds,
        )
    finally:
        os.close(nothing)
        if ours is not None:
            os.close(stdin)
    if ours is not None:
        forked.stdin = os.fdopen(ours, "wb", buffering=0)
    return forked


def _interpreter(environment: Any) -> dict[str, str]:
    """What must be equal. In a training process the number of threads is 1, as in its server."""
    kept = of_an_interpreter(without_additions(environment))
    return {name: value for name, value in kept.items() if name not in ONE_THREAD}


class _Forked(BaseException):
    """Leaves `child_process.main` in the process that it has forked."""


def supervise(arguments: Sequence[str], module: Callable[[Sequence[str]], Callable[[], object]]) -> None:
    """Runs `child_process.main`, whose child is forked and runs a module.

    ``module``: returns what Python runs with such options.
    """

    class Popen(ForkedProgram):
        def __init__(self, command: Sequence[str], *, preexec_fn: Callable[[], None], **_: Any) -> None:
            pid = os.fork()
            os.setpgid(pid, pid)  # both do it, since either may come first
            if pid == 0:
                preexec_fn()
                raise _Forked(command)
            super().__init__(pid, lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    intercepting, subprocess.Popen = subprocess.Popen, Popen  # type: ignore[assignment,misc]
    try:
        sys.exit(child_process.main(arguments))
    except _Forked as forked:
        (command,) = forked.args
    subprocess.Popen = intercepting  # type: ignore[misc]
    module(command[1:])()
