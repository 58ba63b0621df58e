"""The updates of a masked round: their sum, which has masks, and what its members have opened to remove them."""

from __future__ import annotations

from collections.abc import Collection

from fl_aggregator.aggregation.masked_sum import Limits, MaskedSum, UnmaskedSum
from fl_aggregator.aggregation.masked_validation import ExpectedMaskedUpdate
from fl_aggregator.aggregation.regional_sum import SumCaps
from fl_aggregator.aggregation.validation import CheckedMasked
from fl_shared.masking.shares import SharesSection
from fl_shared.masking.unmasking import Opened


class MaskedRound:
    """What is held of one masked round. ``sections``: the shares of the accepted updates, by client.

    ``opened``: what members have opened of them, by member. Both are changed on the loop's thread only. ``total``: an
    empty sum. ``max_examples``, ``caps``: see `Limits`.
    """

    def __init__(
        self, expected: ExpectedMaskedUpdate, max_examples: int | None, caps: SumCaps, total: MaskedSum
    ) -> None:
        self.sections: dict[str, SharesSection] = {}
        self.opened: dict[str, Opened] = {}
        self._plan = expected.plan
        self._sum = total
        self._limits = Limits(caps, expected.manifest, max_examples)

    def add(self, update: CheckedMasked) -> None:
        """Adds an accepted update to the sum."""
        self._sum.add(update.delta, update.tallies)

    def unmask(self, holders: Collection[str]) -> UnmaskedSum:
        """Takes the masks off the sum of the updates, with what ``holders`` have opened. Call it once.

        Raises ``UnmaskFailed``; unless it is ``ImplausibleSum``, it may be called again, with more holders.
        """
        opened = {name: self.opened[name] for name in holders}
        return self._sum.unmask(self._plan, self.sections, opened, self._limits)
