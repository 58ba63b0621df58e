"""Limits a flood, whatever its sender invents: waiting messages, notices, entries and log lines. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Capacity:
    """Limits what waits to ``most_bytes`` and ``most_items`` (None: any number).

    A single item always fits, whatever its size.
    """

    __slots__ = ("_bytes", "_items", "_most_bytes", "_most_items")

    def __init__(self, most_bytes: int, most_items: int | None = None) -> None:
        self._most_bytes = most_bytes
        self._most_items = math.inf if most_items is None else most_items
        self._items = 0
        self._bytes = 0

    def take(self, size: int) -> bool:
        """Counts an item of ``size`` bytes; returns False, and does not count it, if there is no room."""
        if self._items and (self._items >= self._most_items or self._bytes + size > self._most_bytes):
            return False
        self._items += 1
        self._bytes += size
        return True

    def release(self, size: int) -> None:
        """Frees the room of a counted item of ``size`` bytes, which no longer waits."""
        self._items -= 1
        self._bytes -= size


class TurnQueue(Generic[Key, Value]):
    """A queue in which the keys take turns, so that many values of one do not delay those of another.

    The values of one key keep their order.
    """

    def __init__(self) -> None:
        self._queues: OrderedDict[Key, deque[Value]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        """The number of values that wait; may be read on any thread."""
        return self._length

    def append(self, key: Key, value: Value) -> None:
        """Adds a value behind those of ``key``."""
        self._queues.setdefault(key, deque()).append(value)
        self._length += 1

    def popleft(self) -> Value:
        """Removes and returns the next value of the key whose turn it is. Raises ``KeyError`` if there is none."""
        key, values = self._queues.popitem(last=False)
        value = values.popleft()
        if values:
            self._queues[key] = values
        self._length -= 1
        return value


class Interval:
    """Lets something happen at most once every ``seconds``."""

    __slots__ = ("_last", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = -math.inf

    def is_due(self, now: float) -> bool:
        """Whether the interval has passed since this last returned True, or it never has."""
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


class RecentlyUsed(Generic[Key, Value]):
    """Keeps the ``most`` values that were used last; each is made when its key is first used."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def use(self, key: Key, make: Callable[[], Value]) -> Value:
        """Returns the value of ``key``, made if there is none, and marks it as the most recently used."""
        value = self._values.get(key)
        if value is None:
            value = self._values[key] = make()
            if len(self._values) > self._most:
                self._values.popitem(last=False)
        else:
            self._values.move_to_end(key)
        return value

    def get(self, key: Key) -> Value | None:
        """The value of ``key``, or None if it has none. This does not count as a use."""
        return self._values.get(key)


def is_worth_logging(before: int, now: int) -> bool:
    """Whether a count that rose from ``before`` to ``now`` has reached 1 or another power of ten."""
    return before == 0 < now or len(str(now)) > len(str(before))
