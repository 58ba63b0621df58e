"""What the inbox of the loop holds: what connections, predictors, workers and signals have to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fl_edge.messaging.connection import EdgeConnectionEvent
from fl_edge.runtime import inbox as bounded
from fl_edge.session import events
from fl_edge.workers.jobs import JobResult
from fl_shared.mqtt import events as mqtt


@dataclass(frozen=True, slots=True)
class FromConnection:
    """An event of the connection of a client's session."""

    client: str
    event: EdgeConnectionEvent


@dataclass(frozen=True, slots=True)
class FromPredictor:
    """An event of the connection of a client's predictor."""

    client: str
    event: mqtt.ConnectionEvent


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A signal has asked the process to stop."""


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job of the session of ``client`` has ended, and not in the pool; ``event`` is what it means at a time."""

    client: str
    event: Callable[[float], events.Event]


Item = FromConnection | FromPredictor | JobResult | JobEnded | Interrupted
RuntimeInbox = bounded.Inbox[Item]


def size_of(event: EdgeConnectionEvent | mqtt.ConnectionEvent) -> int | None:
    """Returns the length of a message in bytes, or ``None`` for an event of the connection itself."""
    return event.size if isinstance(event, mqtt.Received) else None
