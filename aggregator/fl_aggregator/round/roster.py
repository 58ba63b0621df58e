"""Who is known to a run, who is present, who may be selected, and whose part of the data is whose. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from fl_shared.protocol.messages import ClientRole

WILL_DELAY: Final = 2.0
"""Seconds that a broker takes at most from the first will that it sends at its end until we hear that it is gone."""
REREGISTRATION_GRACE: Final = 10.0
"""Seconds that edges get to register again after our own connection was gone, if the grace is not longer: it
was not their link that blinked, and a broker that restarts has cut off all of them."""
SESSION_OVERLAP: Final = 10.0
"""Seconds after a will in which a registration of the same session is one that it has overtaken."""
MAX_ENDED_SESSIONS: Final = 1000
"""Sessions that are remembered for having ended; more at once are a broker's or a network's end."""


@dataclass(frozen=True, slots=True)
class Client:
    """One edge. ``part`` is its part of the data; ``examples`` and ``manifest`` are known once it is loaded.

    ``encodings``: those in which it can send updates.

    ``unconfirmed``: since ``lost_at``, when our own connection came back, we do not know whether it is there.
    """

    session: str
    device: str
    roles: tuple[ClientRole, ...]
    encodings: tuple[str, ...]
    registered_at: float
    lost_at: float | None = None
    unconfirmed: bool = False
    partition: int | None = None
    manifest: str | None = None
    examples: int | None = None

    @property
    def present(self) -> bool:
        return self.lost_at is None

    @property
    def trains(self) -> bool:
        return "train" in self.roles

    def ready(self, manifest: str | None) -> bool:
        """Whether it trains, has loaded its part, and agrees on the manifest."""
        return self.trains and bool(self.examples) and self.manifest == manifest


@dataclass(frozen=True, slots=True)
class Roster:
    """All clients by their id. Never changed in place.

    ``departures``: whose session has ended lately, which one, and when.
    """

    clients: Mapping[str, Client] = field(default_factory=dict)
    ended_sessions: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Client:
        return self.clients[name]

    def __contains__(self, name: object) -> bool:
        return name in self.clients

    def __iter__(self) -> Iterator[str]:
        return iter(self.clients)

    def get(self, name: str) -> Client | None:
        return self.clients.get(name)

    def with_client(self, name: str, client: Client) -> Roster:
        return replace(self, clients={**self.clients, name: client})

    def without(self, names: Collection[str]) -> Roster:
        if not names:
            return self
        return replace(self, clients={n: client for n, client in self.clients.items() if n not in names})

    def mark_lost(self, name: str, session: str, now: float) -> Roster:
        """Marks a client absent, unless the will that says so is that of an older session."""
        client, roster = self.clients.get(name), self._with_ended_session(name, session, now)
        if client is None or client.session != session:
            return roster
        if client.present:
            return roster.with_client(name, replace(client, lost_at=now))
        if client.unconfirmed:
            return roster.with_client(name, replace(client, unconfirmed=False))
        return self

    def _with_ended_session(self, name: str, session: str, now: float) -> Roster:
        if self.ended_sessions.get(name, ("", 0.0))[0] == session:
            return self
        recent = {n: (s, at) for n, (s, at) in self.ended_sessions.items() if now - at < SESSION_OVERLAP}
        if len(recent) >= MAX_ENDED_SESSIONS:
            return self
        return replace(self, ended_sessions={**recent, name: (session, now)})

    def has_session_ended(self, name: str, session: str, now: float) -> bool:
        """Whether a registration is that of a session that has ended: its will came first, since what is sent at
        QoS 0 does not wait in the broker's queue."""
        ended, at = self.ended_sessions.get(name, ("", 0.0))
        return ended == session and now - at < SESSION_OVERLAP

    def undo_recent_losses(self, now: float) -> Roster:
        """Our own connection is gone: a broker that is stopped sends all wills first, and they say nothing of edges."""
        clients = {
            name: replace(client, lost_at=None)
            if client.lost_at is not None and not client.unconfirmed and now - client.lost_at < WILL_DELAY
            else client
            for name, client in self.clients.items()
        }
        return replace(self, clients=clients)

    def mark_all_unconfirmed(self, now: float) -> Roster:
        """Our own connection was gone: whoever does not register again is taken to be lost since ``now``."""
        clients = {
            name: replace(client, lost_at=now, unconfirmed=True)
            if client.present or client.unconfirmed
            else client
            for name, client in self.clients.items()
        }
        return replace(self, clients=clients)

    def is_absent(self, name: str, now: float, grace: float) -> bool:
        """Whether a client has been away for longer than links blink."""
        client = self.clients.get(name)
        if client is None or client.lost_at is None:
            return client is None
        return now - client.lost_at >= (max(grace, REREGISTRATION_GRACE) if client.unconfirmed else grace)

    def is_in_use(self, name: str, now: float) -> bool:
        """Whether the id belongs to a device that is present, or still has time to say that it is."""
        client = self.clients.get(name)
        if client is None:
            return False
        return client.present or (client.unconfirmed and not self.is_absent(name, now, grace=0))

    def has_unconfirmed_trainers(self, now: float) -> bool:
        """Whether a training edge that was here before our connection was gone may still register again."""
        return any(
            c.unconfirmed and c.trains and not c.present and self.is_in_use(n, now)
            for n, c in self.clients.items()
        )

    def has_evictable(self) -> bool:
        """Whether `evictable` gives any."""
        return any(_is_evictable(client) for client in self.clients.values())

    def evictable(self, count: int) -> tuple[str, ...]:
        """Whom to forget for newcomers when there are too many, at most ``count``: the first to have come of those who
        were never ready and are gone, then of those who were promised no part. Whoever makes up names never says
        that they go.
        """
        ranked = ((c.present, c.registered_at, n) for n, c in self.clients.items() if _is_evictable(c))
        return tuple(name for _, _, name in heapq.nsmallest(count, ranked))

    def trainers(self) -> tuple[str, ...]:
        """Who trains and is present, loaded or not; sorted."""
        return tuple(sorted(n for n, c in self.clients.items() if c.lost_at is None and "train" in c.roles))

    def eligible(self, manifest: str | None) -> tuple[str, ...]:
        """Who may be selected: present and ready; sorted."""
        return tuple(sorted(n for n, c in self.clients.items() if c.present and c.ready(manifest)))

    def taken_partitions(self) -> set[int]:
        return {c.partition for c in self.clients.values() if c.partition is not None}


def _is_evictable(client: Client) -> bool:
    if client.examples:
        return False
    return not client.present or (client.partition is None and "evaluate" not in client.roles)


def default_partition(name: str, count: int) -> int | None:
    """The part that belongs to an id by its number: edge ``k`` has part ``k``."""
    if not (name.isascii() and name.isdecimal()) or name != str(int(name)):
        return None
    return int(name) if int(name) < count else None


def partition_for(roster: Roster, name: str, count: int, *, begun: bool) -> int | Literal["none-left"] | None:
    """The part of a client that registers; ``None``: not given out yet."""
    known = roster.get(name)
    if known is not None and known.partition is not None:
        return known.partition
    own = default_partition(name, count)
    taken = roster.taken_partitions()
    if own is not None and own not in taken:
        return own
    free = next((part for part in range(count) if part not in taken), None)
    if free is None:
        return "none-left"
    return free if begun else None


def assign_partitions(roster: Roster, count: int) -> tuple[Roster, tuple[str, ...]]:
    """Gives the free parts to those present who have none, in the order of their ids; says who got one."""
    without = [name for name in roster.trainers() if roster[name].partition is None]
    taken = roster.taken_partitions()
    given = tuple(zip(without, (part for part in range(count) if part not in taken), strict=False))
    for name, part in given:
        roster = roster.with_client(name, replace(roster[name], partition=part))
    return roster, tuple(name for name, _ in given)
