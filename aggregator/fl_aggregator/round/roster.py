"""The roster: all clients that a run knows, their presence, eligibility and partitions. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from fl_shared.protocol.messages import ClientRole

WILL_DELAY: Final = 2.0
"""At most this many seconds pass from the first will that a broker publishes when it stops until we notice
that it is gone."""
REREGISTRATION_GRACE: Final = 10.0
"""Seconds that edges have to register again after our own connection was lost, unless the grace is longer:
the loss was not theirs, and a broker that restarts disconnects all of them."""


@dataclass(frozen=True, slots=True)
class Client:
    """One client of the roster.

    ``encodings`` are those in which it can send updates. ``partition`` is null if it does not train, or has
    not been assigned one yet; ``examples`` and ``manifest`` are known once it is loaded. ``lost_at`` is the
    run time of its loss, null while it is present. ``unconfirmed``: we do not know whether it is online,
    because our own connection was lost and came back at ``lost_at``. ``unable``: why it does not take part,
    null if it does. ``edges``: it is a regional aggregator, which stands for so many edges; null for an edge.
    null if it does. ``via``: the bridged broker that it is connected to, null for ours; ``bridge_lost``: whether it was
    lost with that broker's bridge.
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
    unable: str | None = None
    edges: int | None = None
    via: str | None = None
    bridge_lost: bool = False

    @property
    def present(self) -> bool:
        """Whether the client is online, as far as we know."""
        return self.lost_at is None

    @property
    def trains(self) -> bool:
        """Whether the client takes part with the role ``train``."""
        return "train" in self.roles and self.unable is None

    @property
    def evaluates(self) -> bool:
        """Whether the client takes part with the role ``evaluate``."""
        return "evaluate" in self.roles and self.unable is None

    def ready(self, manifest: str | None) -> bool:
        """Whether the client trains, has loaded a partition with examples, and agrees on the manifest."""
        return self.trains and bool(self.examples) and self.manifest == manifest


@dataclass(frozen=True, slots=True)
class Roster:
    """All clients by their id. Never changed in place."""

    clients: Mapping[str, Client] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Client:
        return self.clients[name]

    def __contains__(self, name: object) -> bool:
        return name in self.clients

    def __iter__(self) -> Iterator[str]:
        return iter(self.clients)

    def get(self, name: str) -> Client | None:
        """Returns the client with this id, or null if it is unknown."""
        return self.clients.get(name)

    def with_client(self, name: str, client: Client) -> Roster:
        """Returns a roster with this client under the id ``name``."""
        return replace(self, clients={**self.clients, name: client})

    def without(self, names: Collection[str]) -> Roster:
        """Returns a roster without these ids."""
        if not names:
            return self
        return replace(self, clients={n: client for n, client in self.clients.items() if n not in names})

    def mark_lost(self, name: str, session: str, now: float) -> Roster:
        """Marks a client absent, unless the session that has ended is an older one."""
        client = self.clients.get(name)
        if client is None or client.session != session:
            return self
        if client.present:
            return self.with_client(name, replace(client, lost_at=now))
        if client.unconfirmed:
            return self.with_client(name, replace(client, unconfirmed=False))
        return self

    def behind(self, broker: str) -> tuple[str, ...]:
        """Returns the present clients that are connected to this bridged broker."""
        return tuple(n for n, c in self.clients.items() if c.via == broker and c.present)

    def mark_bridge_lost(self, broker: str, now: float) -> Roster:
        """Marks all clients behind a bridged broker absent; only their own registrations bring them back."""
        lost = {n: replace(self.clients[n], lost_at=now, bridge_lost=True) for n in self.behind(broker)}
        return replace(self, clients={**self.clients, **lost}) if lost else self

    def undo_recent_losses(self, now: float) -> Roster:
        """Marks clients present that were lost just before our own connection was.

        A broker that is stopped publishes all wills first, and these say nothing about the edges.
        """
        clients = {
            name: replace(client, lost_at=None, bridge_lost=False)
            if client.lost_at is not None and not client.unconfirmed and now - client.lost_at < WILL_DELAY
            else client
            for name, client in self.clients.items()
        }
        return replace(self, clients=clients)

    def mark_all_unconfirmed(self, now: float) -> Roster:
        """Marks all present clients absent and unconfirmed, after our own connection was lost.

        Those that do not register again count as lost since ``now``.
        """
        clients = {
            name: replace(client, lost_at=now, unconfirmed=True, bridge_lost=False)
            if client.present or client.unconfirmed
            else client
            for name, client in self.clients.items()
        }
        return replace(self, clients=clients)

    def absent_at(self, name: str, grace: float) -> float:
        """Returns the run time at which a client counts as absent, if it stays as it is.

        That is once it has been offline for ``grace`` seconds, or at least `REREGISTRATION_GRACE` if it is unconfirmed;
        always (-∞) if it is unknown or cannot take part; never (∞) while it is present.
        """
        client = self.clients.get(name)
        if client is None or client.unable is not None:
            return -math.inf
        if client.lost_at is None:
            return math.inf
        return client.lost_at + (max(grace, REREGISTRATION_GRACE) if client.unconfirmed else grace)

    def is_absent(self, name: str, now: float, grace: float) -> bool:
        """Whether a client counts as absent now."""
        return now >= self.absent_at(name, grace)

    def is_in_use(self, name: str, now: float) -> bool:
        """Whether the id belongs to a device that is present, or still has time to register again."""
        client = self.clients.get(name)
        if client is None:
            return False
        return client.present or (client.unconfirmed and not self.is_absent(name, now, grace=0))

    def trainers_confirmed_at(self) -> float:
        """Returns the run time from which no edge that trained before our connection was lost is waited for.

        Until then such edges may register again; -∞ if there are none.
        """
        return max(
            (
                self.absent_at(n, grace=0)
                for n, c in self.clients.items()
                if c.unconfirmed and c.trains and not c.present
            ),
            default=-math.inf,
        )

    def has_evictable(self) -> bool:
        """Whether `evictable` would return any client."""
        return any(_is_evictable(client) for client in self.clients.values())

    def evictable(self, count: int) -> tuple[str, ...]:
        """Returns at most ``count`` clients to forget when the roster is full, in order of preference.

        First come absent clients that were never ready, then present ones without a partition that do not
        evaluate; within both, those that registered first. Present ones are included because made-up clients
        never announce that they go offline.
        """
        ranked = ((c.present, c.registered_at, n) for n, c in self.clients.items() if _is_evictable(c))
        return tuple(name for _, _, name in heapq.nsmallest(count, ranked))

    def trainers(self) -> tuple[str, ...]:
        """Returns the present clients that train, loaded or not; sorted."""
        return tuple(sorted(n for n, c in self.clients.items() if c.lost_at is None and c.trains))

    def eligible(self, manifest: str | None) -> tuple[str, ...]:
        """Returns the clients that may be selected: present and ready; sorted."""
        return tuple(sorted(n for n, c in self.clients.items() if c.present and c.ready(manifest)))

    def taken_partitions(self) -> set[int]:
        """Returns the numbers of the partitions that clients have, present or not."""
        return {c.partition for c in self.clients.values() if c.partition is not None}


def _is_evictable(client: Client) -> bool:
    if client.examples:
        return False
    return not client.present or (client.partition is None and not client.evaluates)


def default_partition(name: str, count: int) -> int | None:
    """Returns the partition that belongs to an id by its number, or null.

    Edge ``k`` has partition ``k``, if there are more than ``k`` partitions.
    """
    if not (name.isascii() and name.isdecimal()) or name != str(int(name)):
        return None
    return int(name) if int(name) < count else None


def partition_for(
    roster: Roster, name: str, count: int, *, run_begun: bool
) -> int | Literal["none-left"] | None:
    """Returns the partition of a client that registers; ``None`` if it is assigned when the run begins."""
    client = roster.get(name)
    if client is not None and client.partition is not None:
        return client.partition
    default = default_partition(name, count)
    assigned = roster.taken_partitions()
    if default is not None and default not in assigned:
        return default
    free = next((number for number in range(count) if number not in assigned), None)
    if free is None:
        return "none-left"
    return free if run_begun else None


def assign_partitions(roster: Roster, count: int) -> tuple[Roster, tuple[str, ...]]:
    """Assigns the free partitions to present trainers without one, in the order of their ids.

    Returns the new roster, and the ids that were assigned one.
    """
    unassigned = [name for name in roster.trainers() if roster[name].partition is None]
    assigned = roster.taken_partitions()
    assignments = tuple(
        zip(unassigned, (number for number in range(count) if number not in assigned), strict=False)
    )
    for name, part in assignments:
        roster = roster.with_client(name, replace(roster[name], partition=part))
    return roster, tuple(name for name, _ in assignments)
