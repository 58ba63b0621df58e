"""Child processes that end with their parent, however it ends.

``python -m fl_shared.system.child_process -- PROGRAM ARGS…`` is a supervisor between parent and program. It
holds the reading end of a pipe whose writing end only the parent has. When the parent has ended (even by kill
-9, when it cannot clean up), the pipe is at its end. The supervisor then ends the program with SIGTERM, after
5 s with SIGKILL, and kills what is left of the program's process group. `ChildProcess` is the parent's side.

It imports only the standard library: this file is started as a script, and must start fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

TERMINATION_GRACE: Final = 5.0
"""Seconds between SIGTERM and SIGKILL."""
NOT_FOUND: Final = 127
"""The exit status, as in a shell, if the program cannot be started."""
_PR_SET_PDEATHSIG: Final = 1


class ChildProcess:
    """A program that ends with this process. Its output is appended to ``log`` (None: discarded).

    Ctrl-C in the terminal does not reach the program: the parent ends it. Raises `OSError` if the supervisor
    cannot be started. If the program cannot be started, its status is 127, and the log has the reason. A
    process that the parent forks also holds the pipe open, so the program runs until both have ended: use
    ``spawn``.
    """

    def __init__(
        self, command: Sequence[str], log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.command = tuple(command)
        self.log = log
        with contextlib.ExitStack() as stack:
            output = subprocess.DEVNULL if log is None else stack.enter_context(log.open("ab"))
            self._supervisor = subprocess.Popen(  # noqa: S603 - a list, no shell
                [sys.executable, "-I", "-S", __file__, "--", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of the supervisor; the program is its child."""
        return self._supervisor.pid

    def poll(self) -> int | None:
        """The program's exit status (128 + n if signal n ended it), or None while it runs."""
        return self._supervisor.poll()

    def wait(self, timeout: float) -> int:
        """Waits at most ``timeout`` seconds for the program to end. Raises `subprocess.TimeoutExpired`."""
        return self._supervisor.wait(timeout)

    def stop(self, timeout: float = TERMINATION_GRACE + 5.0) -> int:
        """Ends the program with SIGTERM, after ``timeout`` seconds with SIGKILL; returns its status."""
        assert self._supervisor.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._supervisor.stdin.close()
        try:
            return self._supervisor.wait(timeout)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            return self._supervisor.wait(timeout)

    def log_tail(self, lines: int = 20) -> str:
        """The last ``lines`` lines of the log; empty if there is no log."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def main(arguments: Sequence[str]) -> int:
    """Runs ``-- PROGRAM ARGS…`` until it, or standard input, ends; returns its exit status."""
    if len(arguments) < 2 or arguments[0] != "--":
        sys.stderr.write("usage: python -m fl_shared.system.child_process -- PROGRAM ARGS...\n")
        return 2
    _raise_file_limit()
    try:
        child = subprocess.Popen(  # noqa: S603 - a list, no shell
            arguments[1:],
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=_die_with_supervisor if sys.platform == "linux" else None,
        )
    except OSError as error:
        sys.stderr.write(f"{arguments[1]}: {error.strerror or error}\n")
        return NOT_FOUND
    # Only now, since the handlers need the child; if a signal came before, the end of stdin follows anyway.
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    signal.signal(signal.SIGINT, lambda *_: child.terminate())
    threading.Thread(target=_end_with_stdin, args=(child,), daemon=True).start()
    status = child.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    return 128 - status if status < 0 else status


def _end_with_stdin(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    child.terminate()
    try:
        child.wait(TERMINATION_GRACE)
    except subprocess.TimeoutExpired:
        child.kill()


def _die_with_supervisor() -> None:
    """On Linux, makes the kernel kill the child even if the supervisor is killed with -9."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _raise_file_limit() -> None:
    """Raises the limit of open files: a broker or a fleet has thousands; the usual soft limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS reports "infinity" as the hard limit, but accepts less.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
