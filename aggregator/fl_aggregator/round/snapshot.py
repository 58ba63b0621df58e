"""A run at one moment: its state, and what a resume needs besides, from the effects so far. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.state import Run

RESULTS_RETAINED: Final = 8
"""Results of rounds that stay retained at the broker. Each edge that connects gets them, and again after a resume."""


@dataclass(slots=True)
class Snapshot:
    """The run after a recorded event at ``run_time``, in seconds. Changes in place: each event costs the same.

    ``models`` (the newest two, by version) and ``results`` (the newest, by round) were published last; ``best`` was
    the last version stored as best; ``updates``: the latest accepted one of each edge.
    """

    state: Run
    run_time: float = 0.0
    models: dict[int, do.PublishModel] = field(default_factory=dict)
    results: dict[int, do.PublishResult] = field(default_factory=dict)
    best: do.StoreBest | None = None
    updates: dict[str, UpdateMetadata] = field(default_factory=dict)

    def add(self, run_time: float, state: Run, effects: tuple[do.Effect, ...]) -> None:
        """Adds a step that was recorded: its time, the state after it, and its effects."""
        self.run_time, self.state = run_time, state
        for effect in effects:
            match effect:
                case do.PublishModel(model=model):
                    self.models[model.version] = effect
                    if len(self.models) > 2:
                        del self.models[min(self.models)]
                case do.PublishResult(summary=summary):
                    self.results[summary.round] = effect
                    if len(self.results) > RESULTS_RETAINED:
                        del self.results[min(self.results)]
                case do.Fold(update=update):
                    self.updates[update.client] = update
                case do.StoreBest():
                    self.best = effect
                case _:
                    pass

    def copy(self) -> Snapshot:
        """Returns a snapshot that does not change with this one."""
        return replace(self, models={**self.models}, results={**self.results}, updates={**self.updates})

    def fields(self) -> dict[str, Any]:
        """The snapshot as a dictionary for JSON, without the run's settings."""
        fields: dict[str, Any] = _adapter().dump_python(self, mode="json", exclude={"state": {"settings"}})
        return fields

    @classmethod
    def from_fields(cls, fields: dict[str, Any], settings: Settings) -> Snapshot:
        """The snapshot that has these `fields`. Raises ``ValidationError``, ``KeyError`` or ``TypeError``."""
        return _adapter().validate_python({**fields, "state": {**fields["state"], "settings": settings}})


@cache
def _adapter() -> TypeAdapter[Snapshot]:
    """Made with the first use: that takes a tenth of a second."""
    return TypeAdapter(Snapshot)
