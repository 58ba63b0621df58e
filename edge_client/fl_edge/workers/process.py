"""One worker process, as its parent sees it: frames in, frames out, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Final, cast

from fl_edge.workers.protocol import FromWorker, ToWorker, read_frame, write_frame

EXIT_TIMEOUT: Final = 3.0
"""Seconds that a worker may live on after it has closed its end of the socket."""


class WorkerProcess:
    """Started by the constructor, which raises ``OSError`` if that fails. ``send`` and ``kill`` from any thread.

    ``warm``: it imports torch at once, not only when a job needs it.
    """

    def __init__(
        self, data_dir: Path | None, device: str, stderr: IO[bytes] | int | None, *, warm: bool
    ) -> None:
        self._read_socket, theirs = socket.socketpair()
        # A socket for each thread, so that none is closed under the other's hands.
        self._write_socket = self._read_socket.dup()
        command = [
            sys.executable,
            "-P",
            "-m",
            "fl_edge.workers.worker",
            str(theirs.fileno()),
            "--device",
            device,
        ]
        if data_dir is not None:
            command += ["--data", str(data_dir)]
        if not warm:
            command.append("--cold")
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        try:
            self._process = subprocess.Popen(  # noqa: S603  our own module
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # it makes this the same as stderr
                stderr=stderr,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **one_thread},
                # The terminal's Ctrl-C is for the parent, which decides about its workers.
                start_new_session=True,
            )
        except OSError:
            self._read_socket.close()
            self._write_socket.close()
            raise
        finally:
            theirs.close()
        self._outbox: SimpleQueue[ToWorker | None] = SimpleQueue()
        threading.Thread(target=self._write, name="worker-writer", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, frame: ToWorker) -> None:
        """Never waits: a worker that does not read holds up nobody but its writer thread."""
        self._outbox.put(frame)

    def close_input(self) -> None:
        """Say that nothing more comes once all is written, at which it ends."""
        self._outbox.put(None)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float) -> bool:
        """Whether it has ended within ``timeout`` seconds."""
        try:
            self._process.wait(max(timeout, 0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def receive(self) -> Iterator[FromWorker]:
        """What it says, until it has ended."""
        with self._read_socket:
            while (frame := cast(FromWorker | None, read_frame(self._read_socket))) is not None:
                yield frame
                del frame  # it may have a large vector in it
        if not self.wait(EXIT_TIMEOUT):
            self.kill()
            self._process.wait()
        self.close_input()

    def exit_reason(self) -> str:
        """How it ended, for people."""
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
            with contextlib.suppress(OSError):  # it died, as whoever listens to it knows
                while (frame := self._outbox.get()) is not None:
                    write_frame(self._write_socket, frame)
                    del frame
            with contextlib.suppress(OSError):
                self._write_socket.shutdown(socket.SHUT_WR)
