"""What a region tells the run above. Only a regional aggregator has one (`fl_mqtt.regional`)."""

from __future__ import annotations

from typing import Protocol

from fl_aggregator.aggregation.averaging import SummedRound


class Above(Protocol):
    """The run above, which has ordered a round. The methods must only enqueue."""

    def summed(self, total: SummedRound) -> None:
        """Takes the sum of a round, on the thread of the arithmetic; after a resume once more, with the same bits."""

    def declined(self, number: int, detail: str) -> None:
        """Takes the reason why there is no sum of a round, on the thread of the loop."""
