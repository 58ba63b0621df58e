"""Runs whose updates are masked: their options, what these must keep, and how a cohort masks (protocol, section 10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, Field

from fl_aggregator.configuration.option import Option
from fl_shared.cli.headings import SECURITY
from fl_shared.masking.plan import threshold_of
from fl_shared.masking.tallies import MOST_EXAMPLES
from fl_shared.protocol import messages as m
from fl_shared.system import base64url
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.masked import Bits

if TYPE_CHECKING:
    from fl_aggregator.configuration.settings import Settings

MASKED_MIN: Final = 5
UNMASK_WAIT: Final = 60.0
MASKED_ONLY: Final = ("masked_min", "masked_colluders", "unmask_wait")
"""The settings that have a meaning in masked runs only; null in others by default."""


class MaskedOptions(BaseModel):
    """The options of masked runs. ``unmask_wait`` is in seconds."""

    masked: Annotated[bool, Option(SECURITY, "Learn the sum of a round's updates only: edges mask them.")] = (
        False
    )
    masked_min: Annotated[
        int | None,
        Field(ge=2, le=m.MAX_MEMBERS),
        Option(SECURITY, "Fewest updates in the sum of a masked run.", default=str(MASKED_MIN)),
    ] = None
    masked_colluders: Annotated[
        int | None,
        Field(ge=0, le=m.MAX_MEMBERS),
        Option(
            SECURITY,
            "Edges of a round that may work with the aggregator without learning more than the sum.",
            default="a tenth of the edges of a round, at least 1",
        ),
    ] = None
    unmask_wait: Annotated[
        float | None,
        Field(gt=0, le=1e6),
        Option(
            SECURITY,
            "Seconds that the edges of a masked round have to sign what is summed, and again to unmask it.",
            default=f"{UNMASK_WAIT:g}",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Masking:
    """How a cohort masks its updates: see `messages.Masking`. ``keys``: of each member, as it has registered them."""

    bits: Bits
    threshold: int
    least: int
    colluders: int
    keys: Mapping[str, str]

    def message(self) -> m.Masking:
        """Returns it as the cohort is told."""
        members = tuple([m.Member(client=name, keys=self.keys[name]) for name in sorted(self.keys)])
        return m.Masking(
            bits=self.bits,
            threshold=self.threshold,
            least=self.least,
            colluders=self.colluders,
            members=members,
        )


def colluders_of(settings: Settings) -> int:
    """Returns how many members of a cohort may work with the aggregator."""
    selected = settings.per_round + settings.over_select
    return max(1, selected // 10) if settings.masked_colluders is None else settings.masked_colluders


def least_of(settings: Settings, members: int) -> int:
    """Returns the fewest updates in the sum of a cohort of so many members."""
    fewest = MASKED_MIN if settings.masked_min is None else settings.masked_min
    return max(threshold_of(members, colluders_of(settings)), fewest, settings.effective_quorum)


def fewest_members(settings: Settings) -> int:
    """Returns the members of the smallest cohort: the sum is over two honest edges at least."""
    fewest = colluders_of(settings) + 2
    return max(fewest, least_of(settings, fewest))


def most_members(settings: Settings) -> int:
    """Returns the members of the largest cohort in which ``per_round`` updates can be unmasked."""
    return min(m.MAX_MEMBERS, 2 * settings.per_round - 1 - colluders_of(settings))


def masked_sums(settings: Settings, *, certified: bool) -> m.MaskedSums | None:
    """Returns what can be seen of the updates of a masked run; null if its updates are not masked."""
    if not settings.masked:
        return None
    return m.MaskedSums(least=least_of(settings, fewest_members(settings)), certified=certified)


def unmask_seconds(settings: Settings) -> float:
    """Returns how long members have to sign, and again to open their shares."""
    return UNMASK_WAIT if settings.unmask_wait is None else settings.unmask_wait


def with_keys_of_their_own(keys: Mapping[str, str]) -> list[str]:
    """Returns the edges, in ascending order, without those that have a key of one before them: copies of its state."""
    used: set[bytes] = set()
    found = []
    for name in sorted(keys):
        data = base64url.decoded(keys[name])
        own = {data[:32], data[32:64]}
        if len(own) == 2 and used.isdisjoint(own):
            used |= own
            found.append(name)
    return found


def masking_of(settings: Settings, keys: Mapping[str, str]) -> Masking:
    """Returns how a cohort masks its updates; ``keys``: those of each member, as it has registered them."""
    colluders = colluders_of(settings)
    return Masking(
        settings.fold_width,
        threshold_of(len(keys), colluders),
        least_of(settings, len(keys)),
        colluders,
        keys,
    )


def check_masked(settings: Settings) -> None:
    """Raises ``ValueError`` for settings that no masked run can keep, and for those that only masked runs have."""
    if not settings.masked:
        for name in MASKED_ONLY:
            if getattr(settings, name) is not None:
                raise ValueError(f"{name}: has a meaning with --masked only")
        return
    _check_together(settings)
    _check_numbers(settings)


def _check_together(settings: Settings) -> None:
    refused = {
        "--mode async": settings.mode == "async" and "only members of one round mask together",
        f"--encoding {settings.encoding}": settings.encoding != FLOAT32.name
        and "a masked update is as long as its model",
        f"--similarity {settings.similarity}": settings.similarity
        and "each update is needed, and masked ones cannot be told apart",
        f"--personalize {settings.personalize}": settings.personalize
        and "each edge would say how good its own model is",
        f"--max-buffer {settings.max_buffer:g}": settings.max_buffer != settings.max_delta
        and f"in a masked run it is --max-delta, {settings.max_delta:g}",
    }
    for option, why in refused.items():
        if why:
            raise ValueError(f"masked: does not go with {option}: {why}")


def _check_numbers(settings: Settings) -> None:
    selected, colluders = settings.per_round + settings.over_select, colluders_of(settings)
    if selected > m.MAX_MEMBERS:
        raise ValueError(
            f"masked: a round has at most {m.MAX_MEMBERS} edges, but --per-round + --over-select is {selected}"
        )
    if settings.max_examples > (most := MOST_EXAMPLES // settings.slots):
        raise ValueError(f"max_examples: with --masked, {settings.max_examples} must not exceed {most}")
    if settings.per_round < colluders + 2:
        raise ValueError(
            f"masked_colluders: {colluders} need {colluders + 2} edges in a round, "
            f"but --per-round is {settings.per_round}"
        )
    fewest = MASKED_MIN if settings.masked_min is None else settings.masked_min
    if settings.per_round < fewest:
        raise ValueError(
            f"masked_min: a sum has at least {fewest} updates, but --per-round is {settings.per_round}"
        )
    if (needed := threshold_of(selected, colluders)) > settings.per_round:
        name = "over_select" if settings.over_select else "masked_colluders"
        value = settings.over_select or colluders
        raise ValueError(
            f"{name}: {value}: with --masked, {needed} of {selected} edges unmask the sum, "
            f"but --per-round is {settings.per_round}"
        )
