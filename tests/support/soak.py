"""A long run on a real broker while edges join, leave, hang and are killed; watches the aggregator."""

from __future__ import annotations

import contextlib
import heapq
import json
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.programs import Program
from tests.support.restartable_fleet import RestartableFleet
from tests.support.wait import wait_until

VALUES = 50_000
TASK = f"synthetic-{VALUES}"
CLIENTS = 12
PER_ROUND = 6
STEADY = "0-3"
"""Edges that only hang for a moment, or are killed with all others."""
RESTARTED = ("4-5", "6-7", "8-9", "10-11")
SETTINGS = (
    *("--task", TASK, "--clients", str(CLIENTS), "--per-round", str(PER_ROUND), "--quorum", "1"),
    *("--grace", "0", "--deadline", "10", "--wait", "60", "--holdout", "0"),
)
EDGE = ("--task", TASK, "--role", "train", "--workers", "1")
RETAINED = "$SYS/broker/retained messages/count"
COUNTED = 2.0
"""Seconds until the broker has updated its counts: it does so every second."""
LOOK_EVERY = 0.02
LOOKS = 20
"""Samples of which the median is taken."""
LOST = 3.5
"""Seconds until a broker gives up a silent client (1.5 times its keepalive)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A measurement of the aggregator. ``resident`` in kB.

    ``retained``: messages at the broker that are not the broker's own.
    """

    at: float
    version: int
    resident: int
    descriptors: int
    threads: int
    retained: int


class SoakRun:
    """Runs ``rounds`` rounds with a fault about every ``pace`` rounds, and measures the aggregator.

    ``seed`` decides the faults and the edges they affect; their time depends on the rounds. ``blackouts``:
    the fractions of the run after which every edge is killed at once.
    """

    def __init__(
        self, directory: Path, *, rounds: int, pace: int, seed: int, blackouts: tuple[float, ...]
    ) -> None:
        self.directory = directory
        self.rounds = rounds
        self.samples: list[Sample] = []
        self.faults: list[str] = []
        self.retained: set[str] = set()
        self.left_behind: list[int] = []
        self.output = ""
        self.journals: list[Path] = []
        """The folders of the run's journals: the newest, and before it each one as it was when it was compacted."""
        self._pace = pace
        self._random = random.Random(seed)
        self._blackouts = [int(rounds * part) for part in blackouts]
        self._fleets: list[RestartableFleet] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._history = directory / "run" / "history.jsonl"
        self._read = 0
        self._version = 0

    # --- the run --------------------------------------------------------------------------------------------

    def run(self, timeout: float) -> None:
        """Raises ``AssertionError`` if the run does not end, and end well, within ``timeout`` seconds."""
        (self.directory / "broker").mkdir()
        self._broker = Mosquitto(self.directory / "broker", extra=["sys_interval 1"])
        with ExitStack() as stack:
            stack.callback(self._broker.stop)
            stack.callback(self._find_left_behind)
            self._watching = stack.enter_context(Client(self._broker.endpoint, "$SYS/#"))
            run = stack.enter_context(
                programs.aggregator(self.directory, self._broker.url, *SETTINGS, "--rounds", str(self.rounds))
            )
            for ids in (STEADY, *RESTARTED):
                judge = ("--evaluator", "judge") if ids == STEADY else ()
                fleet = RestartableFleet(
                    self.directory / f"edges-{ids}", self._broker.url, ids, *EDGE, *judge
                )
                stack.callback(fleet.end)
                self._fleets.append(fleet)
                self._start(fleet)
            self._live(run, timeout)
            self.output = run.output
            run.ends_well(10)
            with Client(self._broker.endpoint, "fl/#") as after:
                time.sleep(1.0)
            self.retained = set(after.retained)
            wait_until(lambda: not any(f.zombies() for f in self._fleets), 5, "no zombie below an edge")

    def _live(self, run: Program, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        fault_at = self._pace
        look_at = 0.0
        blackouts = list(self._blackouts)
        while run.running():
            assert time.monotonic() < deadline, (
                f"still running after {timeout} s; {self.faults}\n{run.output}"
            )
            self._follow()
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_EVERY
                self._look(run)
            for fleet in self._fleets:
                fleet.reap()
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()
            if blackouts and self._version >= blackouts[0]:
                blackouts.pop(0)
                self._kill_all_edges()
            elif self._version >= fault_at and self._version > 0:
                fault_at = self._version + self._random.randint(1, 2 * self._pace - 1)
                self._fault()
                assert programs.descendants(run.pid) == [], "an aggregator starts no processes"
            time.sleep(0.005)

    def _follow(self) -> None:
        """Updates how far the run is, from its history."""
        if not self._history.exists():
            return
        journal = self._history.with_name("journal.jsonl")
        folder = self.directory / "journals" / str(journal.stat().st_ino)
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / journal.name).hardlink_to(journal)
            self.journals.append(folder)
        with self._history.open("rb") as file:
            file.seek(self._read)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if line.endswith(b"\n"):
                self._read += len(line)
                made = json.loads(line)["version"]
                self._version = self._version if made is None else made

    def _look(self, run: Program) -> None:
        proc = Path(f"/proc/{run.pid}")
        try:
            status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
            descriptors = len(list((proc / "fd").iterdir()))
        except OSError:
            return  # it has just ended
        if "VmRSS" not in status:
            return
        # The broker's own messages are retained, too; some come only when there is something to report.
        own = {one.topic: one.payload for one in self._watching.received}
        retained = int(own[RETAINED]) - len(own) if RETAINED in own else 0
        self.samples.append(
            Sample(
                time.monotonic(),
                self._version,
                int(status["VmRSS"].split()[0]),
                descriptors,
                int(status["Threads"]),
                retained,
            )
        )

    def after(self, version: int) -> Sample:
        """The median of the first samples after ``version`` whose broker counts are newer, too."""
        later = [sample for sample in self.samples if sample.version >= version]
        return self._median([sample for sample in later if sample.at >= later[0].at + COUNTED][:LOOKS])

    def at_the_end(self) -> Sample:
        """The median of the last samples before the last version; after it, the aggregator shuts down."""
        return self._median([sample for sample in self.samples if sample.version < self.rounds][-LOOKS:])

    @staticmethod
    def _median(seen: list[Sample]) -> Sample:
        return Sample(
            median(sample.at for sample in seen),
            int(median(sample.version for sample in seen)),
            int(median(sample.resident for sample in seen)),
            int(median(sample.descriptors for sample in seen)),
            int(median(sample.threads for sample in seen)),
            int(median(sample.retained for sample in seen)),
        )

    # --- faults -------------------------------------------------------------------------------------------

    def _fault(self) -> None:
        what = self._random.choices(
            ("kill", "stop", "short freeze", "long freeze", "steady freeze"), (4, 4, 3, 1, 1)
        )[0]
        working = [fleet for fleet in self._fleets[1:] if fleet.working]
        if what == "steady freeze":
            self._freeze(self._fleets[0], self._random.uniform(0.2, 1.0))
        elif working:
            fleet = self._random.choice(working)
            if what == "short freeze":
                self._freeze(fleet, self._random.uniform(0.2, 1.0))
            elif what == "long freeze":
                self._freeze(fleet, self._random.uniform(LOST, LOST + 1.5))
            else:
                self._take_down(fleet, signal.SIGKILL if what == "kill" else signal.SIGTERM)
                self._later(self._random.uniform(0.1, 2.0), lambda: self._start(fleet))

    def _kill_all_edges(self) -> None:
        """Kills all edges as simultaneously as possible: all are frozen before the first is killed."""
        up = [fleet for fleet in self._fleets if fleet.up]
        for fleet in up:
            fleet.freeze()
        for fleet in up:
            self._take_down(fleet, signal.SIGKILL)
            self._later(self._random.uniform(0.5, 1.5), partial(self._start, fleet))

    def _start(self, fleet: RestartableFleet) -> None:
        if fleet.start():
            self._note(fleet, "starts")
        else:
            self._later(0.05, lambda: self._start(fleet))

    def _take_down(self, fleet: RestartableFleet, number: signal.Signals) -> None:
        self._note(fleet, f"gets {number.name}")
        fleet.terminate(number)

    def _freeze(self, fleet: RestartableFleet, seconds: float) -> None:
        if fleet.working:
            self._note(fleet, f"hangs for {seconds:.1f} s")
            fleet.freeze()
            self._later(seconds, fleet.thaw)

    def _note(self, fleet: RestartableFleet, what: str) -> None:
        self.faults.append(f"version {self._version}: {fleet.ids} {what}")

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), action))

    def _find_left_behind(self) -> None:
        """Looks for processes that are left when all edges have ended."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self._left_behind(), 5, "all processes have ended")
        self.left_behind = self._left_behind()
        programs.kill_all(self.left_behind)

    def _left_behind(self) -> list[int]:
        return [pid for fleet in self._fleets for pid in fleet.left_behind()]
