"""One cell: runs a run with a fault in one of its phases, and measures the consequences."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from chaos_cells.faults import Fault
from chaos_cells.phases import ROUND, Phase
from chaos_cells.stage import ROUNDS, SLOW, VICTIM, Setting, Stage, Task
from fl_aggregator.storage.checkpoint import model_sha256

DEADLINE: Final = 120.0
"""Seconds after which a cell counts as hung."""
ATTEMPTS: Final = 3
"""Number of attempts to hit a phase that lasts milliseconds."""
START_UP: Final = 60.0
HOLD: Final = 15.0
"""Seconds, at most, for which the other edges' transfers are slowed down."""
WITHOUT_IT: Final = 8.0
"""Seconds to wait for edges (`--wait`) if one of them is killed for good before the run begins."""
_TRAINED: Final = re.compile(r"\[(?P<client>\w+)\] round (?P<round>\d+): trained in")


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """A run without a fault: the model's SHA-256, and the edges that contributed to each version."""

    model_sha256: str
    contributors: dict[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Cell:
    """The measurements of a cell. ``hit``: the fault was injected while the phase lasted.

    ``updates_lost``: updates that were accepted but are not in the version of their round, or were trained
    twice. ``seconds_to_notice``: null if there is nothing to notice, or if no program noticed the fault (then
    ``trouble`` says so). ``same_model``: null if the model need not be the same.
    """

    fault: str
    phase: str
    hit: bool
    finished: bool
    hung: bool
    updates_lost: int
    rounds_lost: int
    seconds_to_notice: float | None
    same_model: bool | None
    seconds: float
    trouble: list[str]

    def as_json(self) -> dict[str, Any]:
        """The measurements as an object for JSON."""
        return asdict(self)


def undisturbed(directory: Path, task: Task) -> Undisturbed:
    """Runs ``task`` without a fault. Raises ``SystemExit`` if that run fails."""
    with Stage(directory, Setting(task)) as stage:
        ended = stage.watch.until(lambda: not stage.aggregator.running(), START_UP + DEADLINE, pause=0.02)
        if not ended or stage.aggregator.wait() != 0:
            raise SystemExit(f"the undisturbed run does not end well:\n{stage.aggregator.output}")
        return Undisturbed(model_sha256(stage.run / "model.safetensors"), _contributors(stage))


def play(directory: Path, fault: Fault, phase: Phase, expected: Undisturbed) -> Cell:
    """Plays a cell until the fault has hit the phase, at most ``ATTEMPTS`` times. Returns the last result."""
    for attempt in range(1, ATTEMPTS + 1):
        cell = _once(directory / str(attempt), fault, phase, expected)
        if cell.hit or not cell.finished:
            break
    return cell


def _once(directory: Path, fault: Fault, phase: Phase, expected: Undisturbed) -> Cell:
    began = time.monotonic()
    wait = WITHOUT_IT if fault.for_good and phase.latecomer else 60.0
    setting = Setting(phase.task, fault.persistence, fault.keepalive, wait, phase.latecomer)
    with Stage(directory, setting) as stage:
        at, hit = _strike(stage, fault, phase)
        ended = _see_it_through(stage, fault, at, began + DEADLINE)
        stage.watch.until(lambda: False, 0.05)  # reads what was written last
        return _measure(stage, fault, phase, expected, hit=hit, struck=at, ended=ended, began=began)


def _strike(stage: Stage, fault: Fault, phase: Phase) -> tuple[float, bool]:
    """Injects the fault.

    Returns when that was (now, if the phase never began), and whether it hit the phase.
    """
    watch = stage.watch
    if phase.slow_from is not None:
        slow_from = phase.slow_from
        watch.until(lambda: slow_from(stage), START_UP, pause=0.0003)
        stage.slow_down()
        if fault.hold_others:
            watch.until(lambda: len(watch.kept(ROUND - 1)) == 4, START_UP, pause=0.0003)
            stage.hold_others()
    if not watch.until(lambda: phase.reached(stage), START_UP, pause=0.0003):
        return time.monotonic(), False
    hit = not phase.left(stage)
    at = time.monotonic()
    fault.strike(stage)
    if stage.proxies["victim"].rate == SLOW:
        stage.proxies["victim"].limit(None)
    if fault.stops_aggregator or not phase.brief:
        # Read what the programs still wrote and sent before the fault took effect.
        watch.until(lambda: False, 0.1 if phase.brief else 0.01)
        hit = hit and not phase.left(stage)
    return at, hit


def _see_it_through(stage: Stage, fault: Fault, struck: float, deadline: float) -> bool:
    """Repairs the fault when it is time, and waits for the end.

    Returns whether the run ended by the deadline.
    """
    mended, held = fault.mend is None, fault.hold_others
    if stage.setting.latecomer:
        stage.start_latecomer()
    while time.monotonic() < deadline:
        stage.watch.look()
        if fault.mend is not None and not mended and time.monotonic() >= struck + fault.lasts:
            fault.mend(stage)
            mended = True
        if held and (_is_back(stage, struck) or time.monotonic() > struck + HOLD):
            stage.proxies["others"].limit(None)
            held = False
        if not stage.aggregator.running() and (mended or stage.aggregator.wait() == 0):
            return True
        time.sleep(0.005)
    return False


def _is_back(stage: Stage, struck: float) -> bool:
    """Whether the victim has registered again: it then counts as present, and the round waits for it."""
    return any(at > struck for at, _ in stage.watch.events("Registered", client=VICTIM))


def _measure(
    stage: Stage,
    fault: Fault,
    phase: Phase,
    expected: Undisturbed,
    *,
    hit: bool,
    struck: float,
    ended: bool,
    began: float,
) -> Cell:
    lines = stage.history()
    contributors = _contributors(stage)
    code = stage.aggregator.wait() if ended else None
    finished = code == 0 and sorted(contributors) == list(range(1, ROUNDS + 1))
    noticed = None if fault.noticed is None else fault.noticed(stage, struck)
    trouble = [f"an exception escaped from {name}" for name in stage.tracebacks()]
    if ended and code != 0:
        trouble.append(f"exit code {code}: {(stage.aggregator.err.strip().splitlines() or ['?'])[-1]}")
    if hit and fault.noticed is not None and noticed is None and ended:
        trouble.append("nobody noticed")
    false_alarms = stage.watch.events("EdgeLost") if fault.noticed is None else []
    if false_alarms:
        trouble.append(f"taken for lost: {', '.join(sorted({e['client'] for _, e in false_alarms}))}")
    same = None
    if finished and contributors == expected.contributors:
        same = model_sha256(stage.run / "model.safetensors") == expected.model_sha256
    return Cell(
        fault=fault.name,
        phase=phase.name,
        hit=hit,
        finished=finished,
        hung=not ended,
        updates_lost=_updates_lost(stage, lines),
        rounds_lost=sum(line["outcome"] == "abandoned" for line in lines),
        seconds_to_notice=None if noticed is None else round(noticed - struck, 3),
        same_model=same,
        seconds=round(time.monotonic() - began, 1),
        trouble=trouble,
    )


def _contributors(stage: Stage) -> dict[int, tuple[str, ...]]:
    """For each version, the number of its round and its participants, which determine the model (G1)."""
    return {
        line["version"]: (str(line["round"]), *line["participants"])
        for line in stage.history()
        if line["outcome"] == "committed"
    }


def _updates_lost(stage: Stage, lines: list[dict[str, Any]]) -> int:
    lost: set[tuple[int, str]] = set()
    for _, event in stage.watch.events("UpdatesLost"):
        lost |= {(event["round"], client) for client in event["clients"]}
    for line in lines:
        if line["outcome"] == "committed":
            lost |= {
                (line["round"], c) for c in stage.watch.kept(line["round"]) if c not in line["participants"]
            }
    for said in stage.watch.said:
        if found := _TRAINED.search(said.text):
            kept = stage.watch.kept(int(found["round"])).get(found["client"])
            if kept is not None and said.at > kept:
                lost.add((int(found["round"]), found["client"]))
    return len(lost)
