"""Decides which messages an edge with a kit believes: they are signed where that is required, and not old.

PURE. A reply cannot be a recorded one, since it names the session, which is random and belongs to this
connection (protocol, 9.5). Replies in turn show which incarnation of which run has admitted the edge, and all
other messages are judged by that, and by what the incarnation has sent since.
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
"""Runs that an edge remembers having belonged to."""
MAX_TOPICS: Final = 1000
"""Topics whose highest sequence number an edge remembers."""


class MessageAuthenticator:
    """Checks the messages that one edge receives, across its connections.

    ``verifier`` checks the aggregator's signatures.
    """

    def __init__(self, verifier: Verifier, channels: Channels = CHANNELS) -> None:
        self._verifier = verifier
        self._channels = channels
        self._current_incarnation: tuple[str, int] | None = None
        self._latest_incarnations: dict[str, int] = {}
        """The newest incarnation of each run that the edge has belonged to."""
        self._seqs: dict[str, int] = {}
        """By topic, the highest sequence number of the incarnation that the edge belongs to."""

    def check(self, topic: t.Topic, text: str, payload: bytes | memoryview) -> None:
        """Raises ``BadSignature`` for a message that must be signed and is not.

        ``text`` is the topic's name, which the signature covers.
        """
        if self._channels.of(topic).signed:
            self._verifier.check(text, payload)

    def staleness(self, text: str, message: m.Message, membership: Membership | None) -> str | None:
        """Returns why an authentic message is too old to be obeyed, or ``None`` if it is not.

        It is given the membership of the edge, ``None`` before the first admission. Births are never too old:
        an edge only reacts to one by registering.
        """
        if membership is not None and (membership.run, membership.incarnation) != self._current_incarnation:
            self._current_incarnation = (membership.run, membership.incarnation)
            self._latest_incarnations.pop(membership.run, None)
            self._latest_incarnations[membership.run] = membership.incarnation
            self._seqs.clear()
            if len(self._latest_incarnations) > MAX_RUNS:
                del self._latest_incarnations[next(iter(self._latest_incarnations))]
        if not isinstance(message, m.Scoped):
            return None
        start = (message.run, message.incarnation)
        if start == self._current_incarnation:
            return self._sequence_error(text, message.seq)
        latest = self._latest_incarnations.get(message.run)
        if latest is not None and message.incarnation <= latest:
            return f"incarnation: {message.incarnation} of run {message.run}, expected more than {latest}"
        return None

    def _sequence_error(self, text: str, seq: int) -> str | None:
        """Returns why a sequence number is too low for its topic, or ``None``.

        The same message may come twice, and a retained one late, but none may come after a newer one.
        """
        last = self._seqs.pop(text, None)
        self._seqs[text] = seq if last is None else max(last, seq)
        if len(self._seqs) > MAX_TOPICS:
            del self._seqs[next(iter(self._seqs))]
        return None if last is None or seq >= last else f"seq: {seq}, expected {last} or more"
