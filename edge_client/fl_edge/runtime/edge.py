"""One edge of a process: its session's state, and what belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fl_edge.messaging.authenticity import MessageAuthenticator
from fl_edge.messaging.connection import EdgeConnection, EdgeConnectionEvent
from fl_edge.prediction.predictor import Predictor
from fl_edge.session.state import SessionState
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.connection import Connection


@dataclass(slots=True, eq=False)
class Edge:
    """``connect`` and ``connect_predictor`` open its connections; ``wire`` is null until `Runtime.run`.

    ``kept_file``: where its finished update outlives the process (`kept`). ``trust`` is null without a kit.
    """

    state: SessionState
    update_file: Path
    connect: Callable[[Callable[[EdgeConnectionEvent], None]], EdgeConnection]
    connect_predictor: Callable[[Callable[[mqtt.ConnectionEvent], None]], Connection]
    authenticator: MessageAuthenticator | None = None
    connection: EdgeConnection | None = None
    predictor: Predictor | None = None
    model_digests: dict[int, str] = field(default_factory=dict)
    """Digest of the model that a job has asked for."""
    scheduled: float | None = None
    """When its session is told next that time has passed."""
    unanswered_since: float | None = None
    """Since when it registers without an answer (seconds of the same clock)."""

    @property
    def client(self) -> str:
        return self.state.identity.client

    @property
    def is_connected(self) -> bool:
        return self.connection is not None and self.connection.is_connected
