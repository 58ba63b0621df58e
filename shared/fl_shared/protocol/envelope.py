"""The head of the aggregator's messages: run, start of the aggregator, and number (protocol, 1.3)."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TypedDict


class Envelope(TypedDict):
    """What stands at the head of every message of the aggregator (protocol, 1.3)."""

    run: str
    incarnation: int
    seq: int


@dataclass(slots=True)
class EnvelopeSource:
    """Which run this is, and which start of its aggregator. ``started``: as in `AggregatorPresence`.

    ``counts_apart``: messages to one client have numbers of their own, so that they tell nothing of those to others.
    """

    run: str
    incarnation: int
    started: int = 0
    counts_apart: bool = False
    _seq: int = field(default=0)
    _seqs: Counter[str] = field(default_factory=Counter)

    def envelope(self) -> Envelope:
        """The head of the next message."""
        self._seq += 1
        return {"run": self.run, "incarnation": self.incarnation, "seq": self._seq}

    def envelope_to(self, client: str) -> Envelope:
        """The head of the next message on a topic of one client."""
        if not self.counts_apart:
            return self.envelope()
        self._seqs[client] += 1
        return {"run": self.run, "incarnation": self.incarnation, "seq": self._seqs[client]}
