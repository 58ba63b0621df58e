"""Carries messages between one aggregator and its edges in virtual time, as a broker does.

The broker stands beside the aggregator: what that publishes is there at once. Each edge has a link, over which one
message comes after the other. Messages are objects; only their size takes time. A new connection gets what is
retained. When a connection ends, its messages that are on their way are lost, and its will is published.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from fl_mqtt.simulation.virtual.world import World
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS

Deliver = Callable[[t.Topic, m.Message | None, bool], None]
"""Receives a message, or null if the topic was cleared; the flag says that it was retained before."""


@dataclass(frozen=True, slots=True)
class Link:
    """``latency``: seconds each way. ``down``, ``up``: bytes a second."""

    latency: float
    down: float
    up: float


@dataclass(frozen=True, slots=True)
class Hop:
    """A message on the link of ``client``: up to the broker, or down from it. ``message`` is null for a clearing."""

    client: str
    up: bool
    topic: t.Topic
    message: m.Message | None


class Faults(Protocol):
    """Decides what becomes of a message on a link."""

    def delays(self, hop: Hop, /) -> Collection[float]:
        """Seconds by which each copy comes late; none: it is lost, several: it is doubled.

        A copy that is late may be overtaken by the messages behind it.
        """


class NoFaults:
    """A network that loses nothing."""

    def delays(self, _hop: Hop) -> Collection[float]:
        """One copy, in time."""
        return (0.0,)


@dataclass(slots=True)
class _Connection:
    link: Link
    roles: frozenset[m.ClientRole]
    deliver: Deliver
    will: m.ClientPresence
    free: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})
    """When the link has sent what it has: up and down."""


class Network:
    """Who is connected, and what is retained. ``faults`` may lose, double and delay messages on links."""

    def __init__(self, world: World, faults: Faults | None = None) -> None:
        self.faults = faults or NoFaults()
        self.retained: dict[t.Topic, m.Message] = {}
        self._world = world
        self._connections: dict[str, _Connection] = {}
        self._aggregator: tuple[Deliver, m.AggregatorPresence] | None = None

    # --- who is connected -----------------------------------------------------------------------------------

    def connect_aggregator(self, deliver: Deliver, will: m.AggregatorPresence) -> None:
        """Connects the aggregator: it gets the presence of all edges, as a new subscription does."""
        self._aggregator = (deliver, will)
        for topic, message in list(self.retained.items()):
            if isinstance(topic, t.PresenceTopic):
                deliver(topic, message, True)

    def disconnect_aggregator(self) -> None:
        """Ends the aggregator's connection; its will is published."""
        if self._aggregator is not None:
            (_, will), self._aggregator = self._aggregator, None
            self.publish(t.AggregatorTopic(), will, retain=True)

    def connect(
        self,
        client: str,
        link: Link,
        roles: Collection[m.ClientRole],
        deliver: Deliver,
        will: m.ClientPresence,
    ) -> None:
        """Connects an edge; it gets what is retained for it, but not its own presence, which is of its last session."""
        self.disconnect(client)
        connection = _Connection(link, frozenset(roles), deliver, will)
        self._connections[client] = connection
        for topic, message in list(self.retained.items()):
            if _reads(topic, client, connection.roles) and not isinstance(topic, t.PresenceTopic):
                self._carry_down(client, connection, topic, message, retained=True)

    def disconnect(self, client: str) -> None:
        """Ends the connection of an edge, if it has one; its will is published."""
        connection = self._connections.pop(client, None)
        if connection is not None:
            topic = t.PresenceTopic(client)
            self.retained[topic] = connection.will
            self._to_aggregator(topic, connection.will)

    def is_connected(self, client: str) -> bool:
        """Whether an edge has a connection."""
        return client in self._connections

    # --- messages -------------------------------------------------------------------------------------------

    def publish(self, topic: t.Topic, message: m.Message | None, *, retain: bool) -> None:
        """Takes a message of the aggregator to all edges that read it; null clears the topic."""
        if retain:
            _retain(self.retained, topic, message)
        if CHANNELS.of(topic).bulk:
            return  # edges ask for the parts of models (`fetch`)
        client = getattr(topic, "client", None)
        if client is not None:
            connection = self._connections.get(client)
            if connection is not None and _reads(topic, client, connection.roles):
                self._carry_down(client, connection, topic, message)
            return
        for name, connection in self._connections.items():
            if _reads(topic, name, connection.roles):
                self._carry_down(name, connection, topic, message)

    def send(self, client: str, topic: t.Topic, message: m.Message, *, retain: bool = False) -> None:
        """Takes a message of an edge to the aggregator, and back to the edge if it reads the topic, too."""
        connection = self._connections.get(client)
        if connection is None:
            return
        for arrives in self._arrivals(Hop(client, True, topic, message), connection):

            def arrive() -> None:
                if self._connections.get(client) is not connection:
                    return
                if retain:
                    _retain(self.retained, topic, message)
                self._to_aggregator(topic, message)
                if _reads(topic, client, connection.roles):
                    self._carry_down(client, connection, topic, message)

            self._world.at(arrives, arrive)

    def transfer(self, client: str, size: int, done: Callable[[], None]) -> None:
        """Takes ``size`` bytes of models down to an edge. If its connection ends meanwhile, ``done`` is not called."""
        connection = self._connections.get(client)
        if connection is None:
            return
        arrives = self._occupy(connection, up=False, size=size)
        self._world.at(arrives, lambda: done() if self._connections.get(client) is connection else None)

    # --- links ----------------------------------------------------------------------------------------------

    def _carry_down(
        self,
        client: str,
        connection: _Connection,
        topic: t.Topic,
        message: m.Message | None,
        *,
        retained: bool = False,
    ) -> None:
        def arrive() -> None:
            if self._connections.get(client) is connection:
                connection.deliver(topic, message, retained)

        for arrives in self._arrivals(Hop(client, False, topic, message), connection):
            self._world.at(arrives, arrive)

    def _arrivals(self, hop: Hop, connection: _Connection) -> Iterator[float]:
        delays = self.faults.delays(hop)
        arrives = self._occupy(connection, up=hop.up, size=size_of(hop.message))
        return (arrives + delay for delay in delays)

    def _occupy(self, connection: _Connection, *, up: bool, size: int) -> float:
        """Puts ``size`` bytes behind what the link sends already; returns when they arrive."""
        link, free = connection.link, connection.free
        free[up] = max(free[up], self._world.now) + size / (link.up if up else link.down)
        return free[up] + link.latency

    def _to_aggregator(self, topic: t.Topic, message: m.Message) -> None:
        if self._aggregator is not None:
            self._aggregator[0](topic, message, False)


def _retain(retained: dict[t.Topic, m.Message], topic: t.Topic, message: m.Message | None) -> None:
    retained.pop(topic, None)  # the newest is last
    if message is not None:
        retained[topic] = message


_READ_BY_EDGES: Final[dict[type[t.Topic], frozenset[m.ClientRole]]] = {
    row.topic: frozenset(row.roles) for row in CHANNELS.rows if "edge" in row.receivers and not row.bulk
}


def _reads(topic: t.Topic, client: str, roles: Collection[m.ClientRole]) -> bool:
    readers = _READ_BY_EDGES.get(type(topic))
    return (
        readers is not None and not readers.isdisjoint(roles) and getattr(topic, "client", client) == client
    )


def size_of(message: Any) -> int:
    """Returns the bytes of the values in a message; all else in it is small."""
    match message:
        case m.Update():
            return sum(len(section.data) for section in message.sections)
        case m.UpdateChunk() | m.ModelChunk():
            return len(message.data)
        case _:
            return 0
