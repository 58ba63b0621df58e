"""One worker process, seen from its parent: sends and receives frames, and tells how the process ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Final, cast

from fl_edge.workers.protocol import FromWorker, ToWorker, read_frame, write_frame

WORKER: Final = ("fl_edge.workers.worker",)
"""The module that a worker runs, with the arguments that come before those of `worker.main`."""
EXIT_TIMEOUT: Final = 3.0
"""Seconds for a worker to end after it has closed its socket; then it is killed."""


class WorkerProcess:
    """Starts a worker process. Raises ``OSError`` if that fails.

    ``send`` and ``kill`` may be called on any thread. ``warm``: the worker imports torch at once, and not with the
    first job; ``light``: never. ``program``: what it runs, see `WORKER`.
    """

    def __init__(
        self,
        data_dir: Path | None,
        device: str,
        stderr: IO[bytes] | int | None,
        *,
        warm: bool,
        light: bool = False,
        program: Sequence[str] = WORKER,
    ) -> None:
        self._read_socket, child_socket = socket.socketpair()
        # Each thread has its own socket, so that neither closes the one that the other uses.
        self._write_socket = self._read_socket.dup()
        command = [
            sys.executable,
            "-P",
            "-m",
            *program,
            str(child_socket.fileno()),
            "--device",
            device,
        ]
        if data_dir is not None:
            command += ["--data", str(data_dir)]
        if not warm:
            command.append("--cold")
        if light:
            command.append("--light")
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        try:
            self._process = subprocess.Popen(  # noqa: S603  our own module
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the worker redirects it to stderr
                stderr=stderr,
                pass_fds=[child_socket.fileno()],
                env={**os.environ, **one_thread},
                # The terminal's Ctrl-C is for the parent, which decides about its workers.
                start_new_session=True,
            )
        except OSError:
            self._read_socket.close()
            self._write_socket.close()
            raise
        finally:
            child_socket.close()
        self._outbox: SimpleQueue[ToWorker | None] = SimpleQueue()
        threading.Thread(target=self._write, name="worker-writer", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, frame: ToWorker) -> None:
        """Queues a frame. Never waits: a worker that does not read only delays its own writer thread."""
        self._outbox.put(frame)

    def close_input(self) -> None:
        """Closes the worker's input after what is queued, at which the worker ends."""
        self._outbox.put(None)

    def kill(self) -> None:
        """Kills the process, and those that its task has forked (SIGKILL)."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout: float) -> bool:
        """Waits at most ``timeout`` seconds; returns whether the process has ended."""
        try:
            self._process.wait(max(timeout, 0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def receive(self) -> Iterator[FromWorker]:
        """Yields the frames of the worker until it has ended."""
        with self._read_socket:
            while (frame := cast(FromWorker | None, read_frame(self._read_socket))) is not None:
                yield frame
                del frame  # it may hold a large vector
        if not self.wait(EXIT_TIMEOUT):
            self.kill()
            self._process.wait()
        self.close_input()

    def exit_reason(self) -> str:
        """Returns how the process ended, for people."""
        status = self._process.returncode
        if status >= 0:
            return f"worker process {self.pid} exited with code {status}"
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        hint = " (perhaps the machine ran out of memory)" if name == "SIGKILL" else ""
        return f"worker process {self.pid} was killed by {name}{hint}"

    def _write(self) -> None:
        with self._write_socket:
            with contextlib.suppress(OSError):  # the worker has died; `receive` notices
                while (frame := self._outbox.get()) is not None:
                    write_frame(self._write_socket, frame)
                    del frame
            with contextlib.suppress(OSError):
                self._write_socket.shutdown(socket.SHUT_WR)
