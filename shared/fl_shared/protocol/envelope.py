"""The head of the aggregator's messages: run, start of the aggregator, and number (protocol, 1.3)."""

from dataclasses import dataclass, field
from typing import TypedDict


class Envelope(TypedDict):
    """What stands at the head of every message of the aggregator (protocol, 1.3)."""

    run: str
    incarnation: int
    seq: int


@dataclass(slots=True)
class EnvelopeSource:
    """Which run this is, and which start of its aggregator. ``started``: as in `AggregatorPresence`."""

    run: str
    incarnation: int
    started: int = 0
    _seq: int = field(default=0)

    def envelope(self) -> Envelope:
        """The head of the next message."""
        self._seq += 1
        return {"run": self.run, "incarnation": self.incarnation, "seq": self._seq}
