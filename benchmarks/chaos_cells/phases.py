"""The phases in which faults are injected: how a cell recognizes the beginning and the end of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chaos_cells.stage import DIGITS, MODEL_BYTES, SYNTHETIC, VICTIM, Stage, Task

ROUND: Final = 2
"""The round, of three, in which faults are injected."""
INTO_TRAINING: Final = 0.15
"""Seconds after its selection until an edge has fetched the 0.4 MB and trains."""
BEGUN: Final = 0.1
"""The fraction of a transfer after which it counts as begun; most of it is still to come."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase.

    ``reached``: whether it has begun. ``left``: whether it is over. Both use the stage's watch.
    """

    name: str
    reached: Callable[[Stage], bool]
    left: Callable[[Stage], bool]
    task: Task = SYNTHETIC
    slow_from: Callable[[Stage], bool] | None = None
    """When the victim's link becomes slow, which it stays until the fault has been injected."""
    latecomer: bool = False
    """Whether one edge is started only after the fault has been injected."""
    brief: bool = False
    """Whether it lasts only milliseconds, less than the watch needs to look again after a fault."""


def _selected(stage: Stage, number: int) -> float | None:
    return stage.watch.first(f"fl/round/{number}/selected")


def _ready(stage: Stage) -> bool:
    """Whether all edges but the latecomer have loaded their partitions."""
    events = stage.watch.events("Registered")
    return len({event["client"] for _, event in events if event["examples"] is not None}) == 3


def _granted(stage: Stage) -> bool:
    return stage.watch.first(f"fl/replies/{VICTIM}", kind="grant", round=ROUND) is not None


def _downloading(stage: Stage) -> bool:
    return _selected(stage, ROUND) is not None and _moved(stage, "down") > BEGUN * MODEL_BYTES


def _downloaded(stage: Stage) -> bool:
    return _moved(stage, "down") >= MODEL_BYTES or _granted(stage)


def _uploading(stage: Stage) -> bool:
    return _granted(stage) and _moved(stage, "up") > BEGUN * MODEL_BYTES


def _moved(stage: Stage, direction: str) -> int:
    """Bytes on the victim's link since it became slow."""
    counted: int = getattr(stage.proxies["victim"].traffic, direction)
    return counted - stage.mark.get(direction, counted)


def _trains(stage: Stage) -> bool:
    at = stage.watch.first_said("victim", f"selected for round {ROUND}")
    return at is not None and stage.watch.now - at > INTO_TRAINING


def _trained(stage: Stage) -> bool:
    return stage.watch.first_said("victim", f"round {ROUND}: trained") is not None


def _has_last_round(stage: Stage) -> bool:
    return VICTIM in stage.watch.kept(ROUND - 1)


def _made(stage: Stage) -> bool:
    return bool(stage.watch.events("ModelCreated", round=ROUND))


PHASES: Final = (
    Phase(
        "selecting",
        reached=_ready,
        left=lambda stage: _selected(stage, 0) is not None,
        latecomer=True,
    ),
    Phase("downloading", reached=_downloading, left=_downloaded, slow_from=_has_last_round),
    Phase("training", reached=_trains, left=_trained, task=DIGITS),
    Phase(
        "uploading",
        reached=_uploading,
        left=lambda stage: VICTIM in stage.watch.kept(ROUND),
        slow_from=_has_last_round,
    ),
    Phase("aggregating", reached=lambda stage: len(stage.watch.kept(ROUND)) == 4, left=_made, brief=True),
    Phase(
        "committing", reached=_made, left=lambda stage: _selected(stage, ROUND + 1) is not None, brief=True
    ),
)
