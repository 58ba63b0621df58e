"""The sum of masked updates, and how it is unmasked: into the integers of the plain sum of the same updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fl_aggregator.aggregation.regional_sum import RegionalSum, SumCaps, SumTooLarge
from fl_shared.masking.plan import Plan
from fl_shared.masking.shares import SharesSection
from fl_shared.masking.streams import DELTA_STREAM, TALLIES_STREAM, add_masks
from fl_shared.masking.tallies import TALLIES, TALLY_BITS, Implausible, Tallies
from fl_shared.masking.unmasking import Opened, UnmaskFailed, find_masks
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.interface import BLOCK, Buffer
from fl_shared.tensors.encodings.masked import MASKED, Words
from fl_shared.tensors.manifest import Manifest


class ImplausibleSum(UnmaskFailed):
    """No honest updates have this sum, so that other shares do not help."""


class MaskedSum:
    """Adds masked updates modulo 2^bits. The order does not matter.

    ``memory``: of as many integers as the model has values, all 0. The sum is made in it, and unmasked there.
    """

    def __init__(self, memory: Int64s, bits: int) -> None:
        self.bits = bits
        self._memory = memory
        self._delta: Words = memory.view(MASKED[bits].dtype)[: len(memory)]
        self._tallies: Words = np.zeros(TALLIES, MASKED[TALLY_BITS].dtype)

    def add(self, delta: Buffer, tallies: Buffer) -> None:
        """Adds the sections of an update, whose lengths have been checked."""
        _add(self._delta, delta, self.bits)
        _add(self._tallies, tallies, TALLY_BITS)

    def unmask(
        self, plan: Plan, sections: Mapping[str, SharesSection], opened: Mapping[str, Opened], limits: Limits
    ) -> UnmaskedSum:
        """Takes the masks off the sum of the updates of ``sections``, by client. Call it once.

        ``opened``: what members have opened, by name. Raises `UnmaskFailed`; the sum is as it was then, unless it is an
        `ImplausibleSum`, which is unmasked.
        """
        found = find_masks(plan, sections, opened)
        add_masks(self._delta, found.masks, DELTA_STREAM)
        add_masks(self._tallies, found.masks, TALLIES_STREAM)
        MASKED[self.bits].sign(self._memory)
        total = RegionalSum(self._memory, {})
        edges = len(sections)
        try:
            limits.caps.check(total, limits.manifest, edges)
            tallies = limits.tallies_of(MASKED[TALLY_BITS].signed(self._tallies), edges)
        except (SumTooLarge, Implausible) as error:
            raise ImplausibleSum(None, f"the sum is implausible: {error}") from None
        return UnmaskedSum(total, tallies, found.liars(plan.colluders))


@dataclass(frozen=True, slots=True)
class Limits:
    """What no honest sum exceeds: ``caps`` of each edge's values, by the model's ``manifest``, and its examples.

    ``max_examples``: null in a private round, where no edge says how many it has.
    """

    caps: SumCaps
    manifest: Manifest
    max_examples: int | None

    def tallies_of(self, sums: Int64s, edges: int) -> Tallies:
        """Returns what the sums of the tallies say. Raises `Implausible`."""
        if self.max_examples is None:
            return Tallies.of_private(sums, edges)
        return Tallies.of(sums, edges, self.max_examples)


@dataclass(frozen=True, slots=True)
class UnmaskedSum:
    """The sum in fixed point, in the memory of `MaskedSum`; ``liars``: who has given wrong shares for certain."""

    total: RegionalSum
    tallies: Tallies
    liars: frozenset[str] = field(default=frozenset())


def _add(total: Words, data: Buffer, bits: int) -> None:
    encoding, view = MASKED[bits], memoryview(data)
    size = encoding.sizes(1)[0]
    for start in range(0, len(total), BLOCK):
        block = total[start : start + BLOCK]
        block += encoding.unpack(view[start * size : (start + len(block)) * size])
