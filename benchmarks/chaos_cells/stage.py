"""The programs of one cell: a broker, an aggregator, four edges in two processes, and three TCP proxies."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from chaos_cells.watch import Watch
from fl_shared.tensors.encodings.float32 import FLOAT32
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.tcp_proxy import TcpProxy

VICTIM: Final = "3"
LATECOMER: Final = "2"
ROUNDS: Final = 3
VALUES: Final = 1_100_000
MODEL_BYTES: Final = FLOAT32.size(VALUES)
CHUNK: Final = 256 * 1024
SLOW: Final = 4e6
"""Bytes per second on the victim's link if a transfer must last long enough to be hit."""
HELD: Final = 4e5
"""Bytes per second on the other edges' link if the round must last until the victim is back."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task, and the ``options`` of ``fl-aggregator start`` for it."""

    name: str
    options: tuple[str, ...]


SYNTHETIC: Final = Task(f"synthetic-{VALUES}", ("--epochs", "1"))
"""For all phases but training: updates of 4.4 MB, which are too large to send whole, and no training time."""
DIGITS: Final = Task("digits", ("--epochs", "25"))
"""For the phase of training, which takes half a second, or longer if three edges share a processor."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a stage is set up.

    ``persistence``: whether the broker saves its state. ``keepalive``: of all programs, in seconds. ``wait``: seconds
    for edges.
    """

    task: Task
    persistence: bool = False
    keepalive: str = programs.KEEPALIVE
    wait: float = 60.0
    latecomer: bool = False
    """Whether one edge starts only at `Stage.start_latecomer`; until then, the run is selecting."""


class Stage:
    """Starts all programs when it is created, and ends them at the end of the ``with`` block."""

    def __init__(self, directory: Path, setting: Setting) -> None:
        self.directory, self.setting = directory, setting
        self.run = directory / "run"
        self.mark: dict[str, int] = {}
        self._lives: dict[str, int] = {}
        self._all: list[programs.Program] = []
        with contextlib.ExitStack() as stack:
            (directory / "broker").mkdir(parents=True)
            self.broker = Mosquitto(directory / "broker", extra=self._broker_lines())
            stack.callback(self.broker.kill)
            self.proxies = {
                name: stack.enter_context(TcpProxy(self.broker.port, seed=seed))
                for seed, name in enumerate(("aggregator", "others", "victim"))
            }
            self.watch = Watch(self.run, self.broker.port)
            stack.callback(self.watch.close)
            stack.callback(self._end_programs)
            self.aggregator = self._start_aggregator()
            self.others = self._start_edges("others", f"0-{LATECOMER if not setting.latecomer else '1'}")
            self.victim = self._start_edges("victim", VICTIM)
            self._stack = stack.pop_all()

    def _broker_lines(self) -> list[str]:
        if not self.setting.persistence:
            return []
        # Saved every second, so that the broker restarts with a recent state.
        where = self.directory / "broker"
        return ["persistence true", f"persistence_location {where}/", "autosave_interval 1"]

    # --- programs -----------------------------------------------------------------------------------------

    def _start(self, name: str, program: str, *arguments: str) -> programs.Program:
        life = self._lives[name] = self._lives.get(name, 0) + 1
        directory = self.directory / f"{name}-{life}"
        started = programs.Program(directory, program, *arguments)
        self._all.append(started)
        self.watch.follow(name, directory / "stderr.txt")
        return started

    def _start_aggregator(self) -> programs.Program:
        run = ("--clients", "4", "--per-round", "4", "--quorum", "1", "--rounds", str(ROUNDS), "--seed", "7",
               "--holdout", "0", "--grace", "0", "--wait", str(self.setting.wait), "--chunk", str(CHUNK))  # fmt: skip
        return self._start(
            "aggregator", "fl-aggregator", "start", "--task", self.setting.task.name, *self.setting.task.options,
            *run, "--broker", self.proxies["aggregator"].url, "--keepalive", self.setting.keepalive,
            "--run-dir", str(self.run),
        )  # fmt: skip

    def _start_edges(self, name: str, ids: str) -> programs.Program:
        proxy = self.proxies["victim" if name == "victim" else "others"]
        return self._start(
            name, "fl-edge", "--id", ids, "--role", "train", "--task", self.setting.task.name, "--workers", "1",
            "--chunk", str(CHUNK), "--broker", proxy.url, "--keepalive", self.setting.keepalive,
            "--state-dir", str(self.directory / "state" / name),
        )  # fmt: skip

    def hold_others(self) -> None:
        """Slows the other edges' link down, so that the round lasts until the victim is back."""
        self.proxies["others"].limit(HELD)

    def slow_down(self) -> None:
        """Slows the victim's link down, and counts the bytes on it from now on."""
        self.mark = {"up": self.proxies["victim"].traffic.up, "down": self.proxies["victim"].traffic.down}
        self.proxies["victim"].limit(SLOW)

    def start_latecomer(self) -> None:
        """Starts the edge that was left out, with which the run can select."""
        self._start_edges("latecomer", LATECOMER)

    def restart_victim(self) -> None:
        """Starts the victim again, with the same state directory."""
        self.victim = self._start_edges("victim", VICTIM)

    def resume(self) -> None:
        """Starts the aggregator again, which resumes the run."""
        self.aggregator = self._start(
            "aggregator", "fl-aggregator", "start", "--resume", str(self.run),
            "--broker", self.proxies["aggregator"].url, "--keepalive", self.setting.keepalive,
        )  # fmt: skip

    def kill(self, program: programs.Program) -> None:
        """Sends SIGKILL and waits until the program has ended, so that its locks are released."""
        program.send(signal.SIGKILL)
        program.wait(10.0)

    def signal_victim(self, number: signal.Signals) -> None:
        """Sends a signal to the victim and to its workers."""
        for pid in (self.victim.pid, *programs.descendants(self.victim.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # --- results ------------------------------------------------------------------------------------------

    def history(self) -> list[dict[str, Any]]:
        """The lines of the run's history; empty before the first."""
        return programs.history(self.directory) if (self.run / "history.jsonl").exists() else []

    def tracebacks(self) -> list[str]:
        """The programs that wrote a traceback."""
        return [" ".join(one.command[:2]) for one in self._all if "Traceback" in one.err]

    def _end_programs(self) -> None:
        self.signal_victim(signal.SIGCONT)
        for program in self._all:
            if program.running():
                program.send(signal.SIGKILL)
            program.wait(10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
