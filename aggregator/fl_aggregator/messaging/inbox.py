"""The inbox, where items from other threads wait for the loop, the one thread that owns the state.

Small, urgent messages (registrations, wills) overtake updates, and the senders of updates take turns. Each
connection has a bounded queue; a message that does not fit is dropped and counted, since its sender repeats it
until it is answered.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from fl_aggregator.aggregation.worker import JobDone
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import topics as t
from fl_shared.system.flood_control import Capacity, TurnQueue

ConnectionName = Literal["control", "updates"]

TICK: Final = 0.2
"""Seconds after which the loop does what is due, at the latest, while items keep coming; else it does so at once."""
MAX_QUEUED_ITEMS: Final = 50_000
"""Messages that may wait in each queue."""
MAX_CONTROL_BURST: Final = 50
"""Control items that may overtake a waiting update, and no more: a flood of them must not stop the round."""
MAX_CONTROL_BYTES: Final = 256 * 2**20
"""Bytes of control messages that may wait."""
MAX_UPDATE_BYTES: Final = 2**28
"""Bytes of updates that may wait: the window of 16 MiB of chunks, and fifty updates of 4 MiB that come
whole."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """The operator (or the operating system) has asked to end the run."""

    reason: str


@dataclass(frozen=True, slots=True)
class AdmittedMessage:
    """A message that the rate limiter has let through.

    ``topic`` is null if it is no topic of the protocol.
    """

    topic: t.Topic | None
    received: mqtt.Received


@dataclass(frozen=True, slots=True)
class SomethingDropped:
    """Messages are being dropped, which the loop has to know, although none of them comes."""


InboxItem = (
    mqtt.Connected
    | mqtt.Subscribed
    | mqtt.Lost
    | mqtt.ConnectRefused
    | AdmittedMessage
    | SomethingDropped
    | StopRequest
    | JobDone
)


def size_of(item: InboxItem) -> int:
    """Returns the bytes of a message's packet, and 0 for any other item."""
    return item.received.size if isinstance(item, AdmittedMessage) else 0


def _sender_of(item: InboxItem) -> str | None:
    return getattr(item.topic, "client", None) if isinstance(item, AdmittedMessage) else None


class Inbox:
    """The queues between the network's thread and the loop's. In that of updates, the senders take turns.

    ``admit`` returns null for messages to be dropped. ``max_waiting`` bounds the messages that wait in each queue,
    ``max_control_bytes`` and ``max_update_bytes`` the bytes of their packets.
    """

    def __init__(
        self,
        admit: Callable[[mqtt.Received], AdmittedMessage | None],
        *,
        max_waiting: int = MAX_QUEUED_ITEMS,
        max_control_bytes: int = MAX_CONTROL_BYTES,
        max_update_bytes: int = MAX_UPDATE_BYTES,
    ) -> None:
        self._admit = admit
        self._condition = threading.Condition()
        self._control: deque[InboxItem] = deque()
        self._updates: TurnQueue[str | None, InboxItem] = TurnQueue()
        self._room = {
            "control": Capacity(max_control_bytes, max_waiting),
            "updates": Capacity(max_update_bytes, max_waiting),
        }
        self._control_burst = 0
        self._dropped = 0

    def put(
        self,
        connection_name: ConnectionName,
        event: mqtt.ConnectionEvent | SomethingDropped | StopRequest | JobDone,
    ) -> None:
        """Adds an item without blocking; may be called on any thread.

        Only messages are ever dropped. A stop request comes first in the queue.
        """
        item = self._admit(event) if isinstance(event, mqtt.Received) else event
        if item is None:
            return
        with self._condition:
            if isinstance(item, AdmittedMessage) and not self._room[connection_name].take(size_of(item)):
                self._dropped += 1  # it is full, so the loop is awake
                return
            if isinstance(item, StopRequest):
                self._control.appendleft(item)  # a flood of anything else must not delay the end
            elif connection_name == "control" or isinstance(item, JobDone):
                self._control.append(item)
            else:
                self._updates.append(_sender_of(item), item)
            self._condition.notify()

    @property
    def queued_items(self) -> int:
        """The number of items in both queues; may be read on any thread."""
        return len(self._control) + len(self._updates)

    @property
    def has_dropped(self) -> bool:
        """Whether any message found no space since `pop_dropped` was last called."""
        return self._dropped > 0

    def pop_dropped(self) -> int:
        """Returns how many messages found no space since the last call."""
        with self._condition:
            dropped, self._dropped = self._dropped, 0
            return dropped

    def get(self, timeout: float) -> tuple[ConnectionName, InboxItem] | None:
        """Returns the next item and its connection, control first; ``None`` after ``timeout`` seconds.

        After `MAX_CONTROL_BURST` control items, a waiting update comes first.
        """
        with self._condition:
            if timeout > 0 and not self._control and not self._updates:
                self._condition.wait(timeout)
            urgent = bool(self._control) and isinstance(self._control[0], StopRequest)
            if self._control and (urgent or not (self._updates and self._control_burst >= MAX_CONTROL_BURST)):
                self._control_burst += 1
                return "control", self._taken("control", self._control.popleft())
            self._control_burst = 0
            if self._updates:
                return "updates", self._taken("updates", self._updates.popleft())
            return None

    def _taken(self, lane: ConnectionName, item: InboxItem) -> InboxItem:
        if isinstance(item, AdmittedMessage):
            self._room[lane].release(size_of(item))
        return item
