"""The roster: all clients that a run knows, their presence, eligibility and partitions. Pure."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from fl_aggregator.round.persistent_map import PersistentMap
from fl_shared.protocol.messages import ClientRole
from fl_shared.system.frozen import replace

REVOKED: Final = "its kit was revoked, expected a new one: fl-aggregator provision add"
"""Why a client with a revoked kit does not take part."""
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
    because our own connection was lost and came back at ``lost_at``. ``left``: why it has left, as it said itself; null
    if it has not, or was lost. ``unable``: why it does not take part, null if it does. ``declines``: that is its last
    word (an edge with another model will say itself what differs). ``revoked``: because its kit was: what it says
    itself never sets this. ``edges``: it is a regional aggregator, which stands for so many edges; null for an edge.
    ``via``: the bridged broker that it is connected to, null for ours; ``bridge_lost``: whether it was lost with that
    broker's bridge. ``environment``: where it runs, an index into the environments of the run. ``keys``: its public
    keys for a run whose updates are masked. ``local_part``: names the arrays of its model that stay on the edge.
    ``earlier``: its session before this one; ``turns``: how often it has returned to that (`two_machines`).
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
    declines: bool = False
    revoked: bool = False
    edges: int | None = None
    via: str | None = None
    bridge_lost: bool = False
    left: str | None = None
    environment: int | None = None
    keys: str | None = None
    local_part: str | None = None
    earlier: str | None = None
    turns: int = 0

    @property
    def region_text(self) -> str | None:
        """Says that it is a region, and for how many edges it stands; null for an edge."""
        return None if self.edges is None else f"region, for {self.edges} edges"

    @property
    def present(self) -> bool:
        """Whether the client is online, as far as we know."""
        return self.lost_at is None

    @property
    def left_text(self) -> str:
        """Says why it has left, to follow that it is offline; empty if it has not said why."""
        return "" if self.left is None else f", left: {self.left}"

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


class Standing(NamedTuple):
    """What is counted of a client. ``loaded``: whether it has examples, null before it has loaded its partition.

    ``unconfirmed_since``: its loss, if it is unconfirmed; all such clients have the same. ``assigned``: whether it has
    a partition. ``declined``: whether it would train, but takes no part; ``declines``: and that is its last word.
    """

    trains: bool
    present: bool
    unconfirmed_since: float | None
    assigned: bool
    loaded: bool | None
    manifest: str | None
    declined: bool
    declines: bool

    @classmethod
    def of(cls, client: Client) -> Standing:
        """Returns the standing of a client."""
        return cls(
            client.trains,
            client.present,
            client.lost_at if client.unconfirmed else None,
            client.partition is not None,
            None if client.examples is None else client.examples > 0,
            client.manifest,
            "train" in client.roles and client.unable is not None,
            "train" in client.roles and client.declines,
        )


class Roster:
    """All clients by their id. Never changed in place.

    A change costs the same however many clients there are: thousands register, and each registration is a change. So
    counts come from a census, which has few entries, and are never taken from the clients.
    """

    __slots__ = ("_census", "_partitions", "clients")

    def __init__(self, clients: Mapping[str, Client] | None = None) -> None:
        self.clients = PersistentMap(clients or {})
        self._census: Mapping[Standing, int] = Counter(map(Standing.of, self.clients.values()))
        self._partitions = PersistentMap(
            (str(client.partition), None) for client in self.clients.values() if client.partition is not None
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Roster) and self.clients == other.clients

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Roster({dict(self.clients)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        clients = handler.generate_schema(dict[str, Client])
        return core_schema.no_info_after_validator_function(
            cls,
            clients,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda roster: dict(roster.clients), return_schema=clients
            ),
        )

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
        previous = self.clients.get(name)
        changed = object.__new__(Roster)
        changed.clients = self.clients.with_value(name, client)
        census = {**self._census}
        if previous is not None:
            standing = Standing.of(previous)
            census[standing] -= 1
            if not census[standing]:
                del census[standing]
        standing = Standing.of(client)
        census[standing] = census.get(standing, 0) + 1
        changed._census, changed._partitions = census, self._partitions
        before, after = (None if one is None else one.partition for one in (previous, client))
        if before != after:
            if before is not None:
                changed._partitions = changed._partitions.without(str(before))
            if after is not None:
                changed._partitions = changed._partitions.with_value(str(after), None)
        return changed

    def without(self, names: Collection[str]) -> Roster:
        """Returns a roster without these ids."""
        if not names:
            return self
        return Roster({n: client for n, client in self.clients.items() if n not in names})

    def mark_lost(self, name: str, session: str, now: float, reason: str | None = None) -> Roster:
        """Marks a client absent, unless the session that has ended is an older one.

        ``reason``: why it has left, null if it has not said that.
        """
        client = self.clients.get(name)
        if client is None or client.session != session:
            return self
        if client.present:
            return self.with_client(name, replace(client, lost_at=now, left=reason))
        if client.unconfirmed:
            return self.with_client(name, replace(client, unconfirmed=False, left=reason))
        return self

    def behind(self, broker: str) -> tuple[str, ...]:
        """Returns the present clients that are connected to this bridged broker."""
        return tuple(n for n, c in self.clients.items() if c.via == broker and c.present)

    def mark_bridge_lost(self, broker: str, now: float) -> Roster:
        """Marks all clients behind a bridged broker absent; only their own registrations bring them back."""
        roster = self
        for name in self.behind(broker):
            roster = roster.with_client(name, replace(self.clients[name], lost_at=now, bridge_lost=True))
        return roster

    def undo_recent_losses(self, now: float) -> Roster:
        """Marks clients present that were lost just before our own connection was.

        A broker that is stopped publishes all wills first, and these say nothing about the edges. Who has said why it
        leaves has left.
        """
        clients = {
            name: replace(client, lost_at=None, bridge_lost=False)
            if client.lost_at is not None
            and client.left is None
            and not client.unconfirmed
            and now - client.lost_at < WILL_DELAY
            else client
            for name, client in self.clients.items()
        }
        return Roster(clients)

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
        return Roster(clients)

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
        """Whether the id belongs to a device that is present, or still has time to register again.

        An edge of another version of the protocol does not keep its id from the edge that replaces it.
        """
        client = self.clients.get(name)
        if client is None or not client.device:
            return False
        return client.present or (client.unconfirmed and not self.is_absent(name, now, grace=0))

    def trainers_confirmed_at(self) -> float:
        """Returns the run time from which no edge that trained before our connection was lost is waited for.

        Until then such edges may register again; -∞ if there are none.
        """
        since = [
            one.unconfirmed_since for one in self._census if one.trains and one.unconfirmed_since is not None
        ]
        return max(since, default=-math.inf) + REREGISTRATION_GRACE

    def count(self, counted: Callable[[Standing], bool]) -> int:
        """Returns how many clients have a standing for which ``counted`` is true."""
        return sum(number for standing, number in self._census.items() if counted(standing))

    def loaded_manifests(self) -> Counter[str]:
        """Returns how many present trainers have loaded examples, by their manifest."""
        found: Counter[str] = Counter()
        for one, number in self._census.items():
            if one.trains and one.present and one.loaded and one.manifest is not None:
                found[one.manifest] += number
        return found

    def count_eligible(self, manifest: str | None) -> int:
        """Returns how many clients may be selected: present and ready."""
        return self.count(
            lambda one: one.trains and one.present and bool(one.loaded) and one.manifest == manifest
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

    def has_partition(self, number: int) -> bool:
        """Whether a client has this partition, present or not."""
        return str(number) in self._partitions

    @property
    def taken_partitions(self) -> int:
        """How many partitions clients have, present or not."""
        return len(self._partitions)


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
    if default is not None and not roster.has_partition(default):
        return default
    if roster.taken_partitions >= count:
        return "none-left"
    return next(number for number in range(count) if not roster.has_partition(number)) if run_begun else None


def assign_partitions(roster: Roster, count: int) -> tuple[Roster, tuple[str, ...]]:
    """Assigns the free partitions to present trainers without one: its own to who has one, others in order of the ids.

    Returns the new roster, and the ids that were assigned one.
    """
    unassigned = [name for name in roster.trainers() if roster[name].partition is None]
    own = {default_partition(name, count): name for name in reversed(unassigned)}
    free = [number for number in range(count) if not roster.has_partition(number)]
    first = {own[number]: number for number in free if number in own}
    others = (name for name in unassigned if name not in first)
    rest = (number for number in free if number not in own)
    assignments = (*first.items(), *zip(others, rest, strict=False))
    for name, part in assignments:
        roster = roster.with_client(name, replace(roster[name], partition=part))
    return roster, tuple(name for name, _ in assignments)
