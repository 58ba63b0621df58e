"""``python -m fl_shared.system.child_process -- PROGRAM ARGS…``: a child that ends with its parent, however that ends.

The leash holds the reading end of a pipe whose writing end only the parent has. When the parent is gone (also
after kill -9, when it can say goodbye to nobody) the pipe is at its end, and the leash ends the program with
SIGTERM, after 5 s with SIGKILL, and with it what the program may have left in its process group. `ChildProcess` is
the parent's side.

Only the standard library: this file is started as a script, and must be fast.
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
_PR_SET_PDEATHSIG: Final = 1


class ChildProcess:
    """A program started on a leash. Its output goes to the end of ``log`` (created; null: thrown away).

    Ctrl-C in the terminal does not reach it: ending it is for the parent. Raises `OSError` if the leash
    itself cannot be started; a program that cannot be is status 127, with the reason in the log. A process that the
    parent forks holds the leash too, and the program lives as long as both: start others with ``spawn``.
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
        """The leash's; the program is below it."""
        return self._supervisor.pid

    def poll(self) -> int | None:
        """The program's exit status (128 + n if signal n ended it), None while it runs."""
        return self._supervisor.poll()

    def wait(self, timeout: float) -> int:
        """Raises `subprocess.TimeoutExpired`."""
        return self._supervisor.wait(timeout)

    def stop(self, timeout: float = TERMINATION_GRACE + 5.0) -> int:
        """Ends the program, with SIGTERM first, and returns its exit status."""
        assert self._supervisor.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._supervisor.stdin.close()
        try:
            return self._supervisor.wait(timeout)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            return self._supervisor.wait(timeout)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log, as text."""
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
    """Runs ``-- PROGRAM ARGS…`` until it ends or standard input does; returns its exit status."""
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
    # Not before the child is there: there is nothing else to do about it, and stdin says it again.
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
    """Linux: the child dies even if the leash is killed with -9."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _raise_file_limit() -> None:
    """A broker or a fleet holds thousands of connections; the usual soft limit is 1024 files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS promises "infinity" and takes less.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
