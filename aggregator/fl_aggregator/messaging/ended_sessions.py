"""Remembers which sessions of edges have ended, for registrations that arrive behind the will of their session.

This is no state of the run and not in the journal: an edge could fill that with wills of sessions that never were.
"""

from __future__ import annotations

from typing import Final

SESSION_OVERLAP: Final = 10.0
"""Seconds after a will in which a registration of the same session is ignored: the will has overtaken it."""
MAX_ENDED_SESSIONS: Final = 1000
"""Ended sessions that are remembered. If more end at once, a broker or a network has failed."""


class EndedSessions:
    """For clients whose session has ended recently: which one, and when. Times are run time in seconds."""

    def __init__(self) -> None:
        self._ended: dict[str, tuple[str, float]] = {}

    def __len__(self) -> int:
        """The number of clients whose session is remembered."""
        return len(self._ended)

    def add(self, client: str, session: str, now: float) -> None:
        """Remembers that a session has ended, unless too many have. The first time counts."""
        if self._ended.get(client, ("", 0.0))[0] == session:
            return
        self._ended.pop(client, None)
        while self._ended and now - next(iter(self._ended.values()))[1] >= SESSION_OVERLAP:
            del self._ended[next(iter(self._ended))]
        if len(self._ended) < MAX_ENDED_SESSIONS:
            self._ended[client] = (session, now)

    def has_ended(self, client: str, session: str, now: float) -> bool:
        """Whether a session that registers has ended already.

        The will may come first, since a message at QoS 0 does not wait in the broker's queue.
        """
        ended_session, ended_at = self._ended.get(client, ("", 0.0))
        return ended_session == session and now - ended_at < SESSION_OVERLAP
