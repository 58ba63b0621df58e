"""What watchers read: the state of the run, of its rounds and of its edges."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fl_shared.protocol.kinds.base import (
    ClientId,
    Count,
    Fragment,
    Metrics,
    Number,
    PresenceState,
    Scoped,
    Seconds,
    TaskName,
    Text,
    Timestamp,
)

MAX_REFUSED_NAMED: Final = 3
"""So many of whom most was refused does a status name."""
Phase = Literal[
    "selecting", "collecting", "aggregating", "evaluating", "finished", "failed", "interrupted"
]  # fmt: skip
FINAL_PHASES: Final[tuple[Phase, ...]] = ("finished", "failed", "interrupted")
"""Those of a run's last status."""


class MissingClient(Fragment):
    state: PresenceState
    seconds: Seconds
    """Since it was selected (online) or lost (offline)."""


class Missing(Scoped):
    """``fl/round/<n>/missing``, retained while the round is open: everyone it still waits for."""

    kind: Literal["missing"] = "missing"
    round: Count
    clients: dict[ClientId, MissingClient]


EdgeStateName = Literal["present", "offline", "selected", "training", "uploading", "in", "missing"]


class EdgeView(Fragment):
    """One edge in the eyes of the aggregator; ``why`` it is missing or offline, or not ready yet.

    The numbers are those of its newest update that was accepted: ``examples`` and ``seconds`` of training, ``bytes``
    of the update, and how the trained model did on what the edge holds out.
    """

    state: EdgeStateName
    why: Text | None = None
    examples: Count | None = None
    seconds: Seconds | None = None
    bytes: Count | None = None
    accuracy: Number | None = None
    loss: Number | None = None


class Edges(Scoped):
    """``fl/round/<n>/edges``, retained: every edge of the roster, for who watches; at most 2 MiB.

    While the round is about to open or open, and afterwards as it ended. ``left_out``: so many more edges had no
    room in what the broker takes.
    """

    kind: Literal["edges"] = "edges"
    round: Count
    phase: Phase
    edges: dict[ClientId, EdgeView]
    left_out: Count = 0


MAX_HISTORY: Final = 500
"""Rows of `History`; it also has at most 64 KiB."""


class HistoryColumns(Fragment):
    """Equally long arrays, one entry a round. ``version`` is null where a round was abandoned; numbers that nobody
    has measured are null. ``seconds`` without the evaluation, which goes on beside the next round.
    """

    round: tuple[Count, ...] = ()
    version: tuple[Count | None, ...] = ()
    accuracy: tuple[Number | None, ...] = ()
    loss: tuple[Number | None, ...] = ()
    train_loss: tuple[Number | None, ...] = ()
    seconds: tuple[Seconds, ...] = ()
    participants: tuple[Count, ...] = ()
    cohort: tuple[Count, ...] = ()
    bytes_up: tuple[Count, ...] = ()
    bytes_down: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        lengths = {name: len(getattr(self, name)) for name in type(self).model_fields}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"expected equally long arrays, got {lengths}")
        if lengths["round"] > MAX_HISTORY:
            raise ValueError(f"{lengths['round']} rows, expected at most {MAX_HISTORY}")
        return self


class History(Scoped):
    """``fl/history``, retained: the rounds that have ended, for curves. Thinned evenly when there are many.

    ``rounds``: versions that are to be made. ``started``: when the run began, however often it was taken up again.
    """

    kind: Literal["history"] = "history"
    task: TaskName
    rounds: Count
    started: Timestamp
    columns: HistoryColumns


class Status(Scoped):
    """``fl/status``, retained, at most 1 KiB: written on change (at most twice a second) and every 5 s."""

    kind: Literal["status"] = "status"
    written: Timestamp
    task: TaskName
    phase: Phase
    round: Count | None
    version: Count | None
    rounds: Count
    have: Count
    need: Count
    present: Count
    seconds_left: Seconds | None
    missing: Annotated[tuple[ClientId, ...], Field(max_length=10)]
    metrics: Metrics
    paused: Annotated[str, StringConstraints(max_length=300)] | None = None
    """Why the run stands still, and its time with it; null while it goes on."""
    refused: Annotated[
        dict[Annotated[str, StringConstraints(max_length=64)], Count], Field(max_length=MAX_REFUSED_NAMED)
    ] = Field(default={})
    """Those of whom most was refused since this start (8.6), and how much."""
