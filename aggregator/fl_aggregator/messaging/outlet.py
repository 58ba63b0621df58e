"""What the aggregator publishes through: its connections to a broker, or something that stands for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t


class Outlet(Protocol):
    """Publishes messages, and keeps those that are retained (`connections.Connections`)."""

    bytes_up: int
    """Bytes of the updates and chunks that have come; who receives them counts them."""
    bytes_down: int
    """Bytes of the payloads that were published, except for watchers."""

    @property
    def maximum_packet_size(self) -> int:
        """Bytes of the largest packet that may be published."""

    def send(self, topic: t.Topic, message: m.Message, correlation: bytes | None = None) -> None:
        """Publishes a message that is not retained. ``correlation``: the Correlation Data of what it answers."""

    def retain(self, topic: t.Topic, message: m.Message, *, counted: bool = True) -> None:
        """Publishes a retained message. ``counted``: whether its bytes are part of a round's cost."""

    def retain_large(self, topic: t.Topic, make: Callable[[], m.Message]) -> None:
        """Publishes a large retained message, which is made again each time it has to be repeated."""

    def clear(self, topic: t.Topic) -> None:
        """Clears a message that is retained; does nothing if none is retained on the topic."""
