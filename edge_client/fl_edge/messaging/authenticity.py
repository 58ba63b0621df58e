"""What an edge with a kit believes of what comes in the aggregator's name: what is signed, and is not old.

PURE. That a reply is not a recorded one is told by the session that it names, which is random and this connection's
(protocol, 9.5); all else is told from that: which start of which run has admitted the edge, and what it said since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fl_edge.session.state import Membership
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channels

if TYPE_CHECKING:
    from fl_shared.security.signatures import Verifier

MAX_RUNS: Final = 1000
"""Runs that an edge remembers to have belonged to."""
MAX_TOPICS: Final = 1000
"""Topics on which it remembers what came last."""


class MessageAuthenticator:
    """Of one edge; outlives its connections. ``verifier`` knows the aggregator's signatures."""

    def __init__(self, verifier: Verifier, channels: Channels = CHANNELS) -> None:
        self._verifier = verifier
        self._channels = channels
        self._current_incarnation: tuple[str, int] | None = None
        self._latest_incarnations: dict[str, int] = {}
        """The newest start of each run that it has belonged to."""
        self._seqs: dict[str, int] = {}
        """By topic, of the start that it belongs to."""

    def check(self, topic: t.Topic, text: str, payload: bytes | memoryview) -> None:
        """Raises ``BadSignature`` for what has to be signed and is not. ``text`` spells the topic."""
        if self._channels.of(topic).signed:
            self._verifier.check(text, payload)

    def staleness(self, text: str, message: m.Message, member: Membership | None) -> str | None:
        """Why a message that was signed, if it had to be, is not to be obeyed, or null. ``member``: where it belongs.

        Births are never old: all that comes of them is that the edge registers.
        """
        if member is not None and (member.run, member.incarnation) != self._current_incarnation:
            self._current_incarnation = (member.run, member.incarnation)
            self._latest_incarnations.pop(member.run, None)
            self._latest_incarnations[member.run] = member.incarnation
            self._seqs.clear()
            if len(self._latest_incarnations) > MAX_RUNS:
                del self._latest_incarnations[next(iter(self._latest_incarnations))]
        if not isinstance(message, m.Scoped):
            return None
        start = (message.run, message.incarnation)
        if start == self._current_incarnation:
            return self._sequence_error(text, message.seq)
        known = self._latest_incarnations.get(message.run)
        if known is not None and message.incarnation <= known:
            return f"incarnation: {message.incarnation} of run {message.run}, expected more than {known}"
        return None

    def _sequence_error(self, text: str, seq: int) -> str | None:
        """The same message may come twice, and one that is retained late; but none before one that has come."""
        last = self._seqs.pop(text, None)
        self._seqs[text] = seq if last is None else max(last, seq)
        if len(self._seqs) > MAX_TOPICS:
            del self._seqs[next(iter(self._seqs))]
        return None if last is None or seq >= last else f"seq: {seq}, expected {last} or more"
