"""One edge of a process: the state of its session, and the objects that belong to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fl_edge.messaging.authenticity import MessageAuthenticator
from fl_edge.messaging.connection import EdgeConnection, EdgeConnectionEvent
from fl_edge.prediction.predictor import Predictor
from fl_edge.session.state import LoadedPartition, Session, SessionState
from fl_edge.storage.own_state_files import OwnStateFiles
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.connection import Connection
from fl_shared.protocol.messages import Partition


@dataclass(slots=True, eq=False)
class Edge:
    """One edge, as the runtime's loop sees it.

    ``connect`` and ``connect_predictor`` open its connections; ``connection`` is ``None`` until
    `Runtime.run`. ``update_file`` keeps its finished update across restarts (see `update_store`).
    ``authenticator`` is ``None`` without a kit.
    """

    state: SessionState
    update_file: Path
    connect: Callable[[Callable[[EdgeConnectionEvent], None]], EdgeConnection]
    connect_predictor: Callable[[Callable[[mqtt.ConnectionEvent], None]], Connection]
    authenticator: MessageAuthenticator | None = None
    connection: EdgeConnection | None = None
    predictor: Predictor | None = None
    own_state: OwnStateFiles = field(init=False)
    """What it keeps for a correction, beside its update."""
    model_digests: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """By job, the digests of the model that it has asked for, and of its companions."""
    scheduled: float | None = None
    """When the session gets its next ``TimePassed``; ``None`` if it waits for no time."""
    unanswered_since: float | None = None
    """Since when it has registered without an answer, in seconds of the same clock; ``None`` if it does
    not."""

    def __post_init__(self) -> None:
        self.own_state = OwnStateFiles(self.update_file.parent, self.client)

    @property
    def client(self) -> str:
        """The edge's id."""
        return self.state.identity.client

    def partition_of(self, task: str) -> Partition | None:
        """Returns the partition of the data of ``task`` that the edge has loaded, or ``None``."""
        match self.state:
            case Session(partition_state=LoadedPartition(task=loaded, partition=partition)) if loaded == task:
                return partition
            case _:
                return None

    @property
    def is_connected(self) -> bool:
        """Whether the connection of the edge's session is up."""
        return self.connection is not None and self.connection.is_connected
