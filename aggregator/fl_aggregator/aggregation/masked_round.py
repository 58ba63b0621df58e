"""The updates of a masked round: their sum, which has masks, and what its members have opened to remove them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np

from fl_aggregator.aggregation.masked_validation import TALLY_COUNT, ExpectedMaskedUpdate
from fl_aggregator.aggregation.regional_sum import RegionalSum, SumCaps, SumTooLarge
from fl_aggregator.aggregation.validation import CheckedMasked
from fl_aggregator.round.events import Tallies
from fl_shared.masking.shares import SharesSection
from fl_shared.masking.streams import DELTA_STREAM, TALLIES_STREAM, add_masks
from fl_shared.masking.unmasking import Opened, UnmaskFailed, find_masks
from fl_shared.tensors.encodings.masked import MASKED

TALLY_SCALE: Final = 2.0**20


class Implausible(UnmaskFailed):
    """The sum is none that these updates can have: more shares would not help."""


class MaskedRound:
    """What is held of one masked round. ``sections``: the shares of the accepted updates, by client.

    ``opened``: what members have opened of them, by member. Both are changed on the loop's thread only.
    """

    def __init__(self, expected: ExpectedMaskedUpdate, max_examples: int, caps: SumCaps) -> None:
        self.plan = expected.plan
        self.sections: dict[str, SharesSection] = {}
        self.opened: dict[str, Opened] = {}
        self._encoding = MASKED[expected.plan.bits]
        self._delta = np.zeros(expected.manifest.values, self._encoding.dtype)
        self._tallies = np.zeros(TALLY_COUNT, MASKED[64].dtype)
        self._manifest = expected.manifest
        self._max_examples = max_examples
        self._caps = caps

    def add(self, update: CheckedMasked) -> None:
        """Adds an accepted update to the sum."""
        self._delta += self._encoding.unpack(update.delta)
        self._tallies += MASKED[64].unpack(update.tallies)

    def unmask(self, holders: Collection[str]) -> tuple[RegionalSum, Tallies]:
        """Returns the sum of the updates and their tallies; nothing changes, so it can be called again.

        ``holders``: the members with whose shares it is unmasked. Raises ``UnmaskFailed``.
        """
        found = find_masks(self.plan, self.sections, {name: self.opened[name] for name in holders})
        delta, tallies = self._delta.copy(), self._tallies.copy()
        add_masks(delta, found.masks, DELTA_STREAM)
        add_masks(tallies, found.masks, TALLIES_STREAM)
        counts = MASKED[64].signed(tallies).tolist()
        summed = Tallies(counts[0], counts[1], *(one / TALLY_SCALE for one in counts[2:7]))
        total = RegionalSum(self._encoding.signed(delta), {})
        members = len(self.sections)
        if not members <= summed.examples <= members * self._max_examples:
            raise Implausible(None, f"examples: {summed.examples} of {members} edges")
        try:
            self._caps.check(total, self._manifest, members)
        except SumTooLarge as error:
            raise Implausible(None, str(error)) from None
        return total, summed
