"""Edges that a test stops, freezes, kills and starts again."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path

from tests.support import programs
from tests.support.programs import Program


class RestartableFleet:
    """One ``fl-edge`` that is started and ended repeatedly."""

    def __init__(self, directory: Path, broker: str, ids: str, *arguments: str) -> None:
        self.ids = ids
        self._were: dict[int, str] = {}
        self._new = partial(programs.edges, directory, broker, ids, *arguments)
        self._program: Program | None = None
        self._frozen = False
        self._leaving: tuple[set[int], float] | None = None

    @property
    def up(self) -> bool:
        return self._program is not None and self._leaving is None

    @property
    def working(self) -> bool:
        return self.up and not self._frozen

    def start(self) -> bool:
        """Starts the program; returns False if it is still running."""
        if self._program is not None:
            return False
        self._program = self._new()
        return True

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """Lets a frozen program continue, unless it has been killed meanwhile."""
        if self._frozen and self._leaving is None:
            self._send(signal.SIGCONT)
            self._frozen = False

    def terminate(self, number: signal.Signals) -> None:
        """Sends SIGTERM or SIGKILL; `reap` notices the end."""
        if self._leaving is None:
            program = self._send(number)
            self._were |= {pid: _born(pid) for pid in (program.pid, *programs.descendants(program.pid))}
            # A program that is still importing its modules has no signal handler yet.
            self._leaving = ({-number, 130} if number is signal.SIGTERM else {-number}, time.monotonic() + 20)

    def reap(self) -> None:
        if self._program is None:
            return
        if self._program.running():
            assert self._leaving is None or time.monotonic() < self._leaving[1], self._program.output
            return
        assert self._leaving is not None, f"an edge has ended by itself\n{self._program.output}"
        code = self._program.wait()
        assert code in self._leaving[0], f"exit code {code}\n{self._program.output}"
        self._program, self._leaving, self._frozen = None, None, False

    def _send(self, number: signal.Signals) -> Program:
        assert self._program is not None
        assert self._program.running(), f"an edge has ended by itself\n{self._program.output}"
        self._program.send(number)
        return self._program

    def left_behind(self) -> list[int]:
        """Processes that still run although their program was ended."""
        return [pid for pid, born in self._were.items() if programs.alive([pid]) and _born(pid) == born]

    def zombies(self) -> list[int]:
        """Descendants that have ended without having been waited for."""
        if self._program is None:
            return []
        below = programs.descendants(self._program.pid)
        return [pid for pid in below if pid not in programs.alive(below)]

    def end(self) -> None:
        """Ends the program, with SIGTERM if it ends within 20 s."""
        if self._program is None:
            return
        with self._program as program:
            self.thaw()
            self.terminate(signal.SIGTERM)
            program.wait(20)


def _born(pid: int) -> str:
    """The start time of a process, which identifies it if its number is used again; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
