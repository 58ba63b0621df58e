"""What a run is told that looks at a served model, and trains a candidate for its place if it has become worse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from fl_shared.errors import UserError

if TYPE_CHECKING:
    from fl_aggregator.configuration.settings import Settings


class Look(BaseModel):
    """The look begins after ``hold`` seconds, in which edges only predict. ``served``: the served version's number.

    The run begins with that version, and its target is what it must still be worth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    served: Annotated[int, Field(ge=1)]
    hold: Annotated[float, Field(ge=0)] = 0.0


_UNSERVED: Final = {
    "survey": "it is a survey, which makes no model",
    "region": "it is that of a regional aggregator: serve the run above",
    "hides_edges": "its edges say nothing of their own data, so that nobody can measure a model on them",
    "keep_local": "a part of its model stays on the edges (--keep-local), so there is no whole one to serve",
}


def look_settings(
    earlier: Settings,
    look: Look,
    *,
    target: str,
    rounds: int | None,
    wait: float | None,
    prefix: str,
    require_sealed: bool,
) -> Settings:
    """Returns the settings of a look at a model of the run ``earlier``: those of the run, for as far as they fit.

    ``target``: what the served model must be worth. ``rounds``: of a new training; null: as many as in the run.
    ``wait``: seconds for enough edges; null: as long as the run waits. Raises ``UserError`` if its model cannot be
    looked at.
    """
    from fl_aggregator.configuration.settings import Settings

    for name, why in _UNSERVED.items():
        if getattr(earlier, name):
            raise UserError(f"DIR: the run cannot be served: {why}")
    if earlier.holdout == 0:
        raise UserError(
            "DIR: the run cannot be served: its edges hold out nothing to measure on (--holdout 0)"
        )
    changes = {
        "target": target,
        "rounds": rounds or earlier.rounds,
        "wait": wait or earlier.wait,
        "prefix": prefix,
        "serve": "newest",
        "personalize": 0,
        "require_sealed": require_sealed,
        "look": look,
    }
    return Settings.model_validate({**earlier.model_dump(), **changes})
