"""What a run and its regional aggregators know of each other once it begins. None of it is an option."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from fl_shared.protocol import messages as m

if TYPE_CHECKING:
    from fl_aggregator.configuration.settings import Settings


class Sums(BaseModel):
    """How regional aggregators add up the updates of their edges. It follows from the strategy.

    ``combine`` and ``transforms``: the parts that they apply; ``norms``: whether they say how long each update is;
    ``needs_each``: the option that needs each update, so that no sums can be taken; empty if none does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    combine: str = ""
    transforms: tuple[str, ...] = ()
    norms: bool = False
    needs_each: str = ""

    @property
    def by_steps(self) -> bool:
        """Whether an update counts by the steps that its edge says it has taken."""
        return self.combine.partition(":")[0] == "normalized"


class Region(BaseModel):
    """A region in the run above, which orders its rounds; ``edges``: how many of the run's clients it has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    edges: int


def regional_sums(settings: Settings) -> m.RegionalSums:
    """Returns how regional aggregators add up, as they are told when they are admitted."""
    return m.RegionalSums(
        combine=settings.sums.combine,
        transforms=settings.sums.transforms,
        norms=settings.sums.norms,
        fold=settings.fold_settings,
        slots=settings.slots,
        encoding=settings.encoding,
        model_encoding=settings.model_encoding,
    )
