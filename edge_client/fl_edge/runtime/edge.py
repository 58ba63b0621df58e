"""One edge of a process: the state of its session, and the objects that belong to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fl_edge.messaging.authenticity import MessageAuthenticator
from fl_edge.messaging.connection import EdgeConnection, EdgeConnectionEvent
from fl_edge.messaging.model_store import FetchedModel
from fl_edge.prediction.predictor import Predictor
from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.session import effects, events
from fl_edge.session.policy import RequiredMasking
from fl_edge.session.privacy import NO_PRIVACY, NOT_WITH_DP_SGD, OwnPrivacy
from fl_edge.session.state import Identity, LoadedPartition, Session, SessionState
from fl_edge.session.survey import USUAL, SurveyPolicy
from fl_edge.session.transitions import leaving_of
from fl_edge.session.work import OwnState, StateReference
from fl_edge.storage.own_state_files import OwnStateFiles
from fl_edge.storage.privacy_ledger import PrivacyLedger
from fl_edge.tasks import registry
from fl_edge.tasks.synthetic import NAME_PREFIX
from fl_edge.training.corrections import registry as corrections
from fl_edge.training.local_part import LOCAL, PERSONAL
from fl_edge.workers.protocol import CacheModel
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.connection import Connection
from fl_shared.protocol import messages as m
from fl_shared.protocol.abilities import BF16, CLIP_GRADIENTS, LOGIT_ADJUSTMENT
from fl_shared.protocol.messages import ClientRole, Environment, Partition
from fl_shared.protocol.task_spec import task_name
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.digest import digest_of
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import ArraySpec, Manifest


class ModelServer(Protocol):
    """What takes an edge's announced models: it answers predictions (`Predictor`), or passes them on to a region."""

    def model_announced(self, announced: m.ModelAnnouncement, now: float) -> None:
        """Makes this model the newest one."""

    def model_fetched(self, digest: str, model: FetchedModel | None, reason: str, now: float) -> None:
        """Takes the outcome of a fetch; without a model, ``reason`` says why."""

    def close(self) -> Connection | None:
        """Ends it; returns its own connection, which is to be closed."""


@dataclass(frozen=True, slots=True)
class PersonalModel:
    """A model of the edge's own: the arrays that are shared in training, and those that stay there, too."""

    whole: CacheModel
    local: CacheModel | None


def identity_of(
    client: str,
    device: str,
    roles: tuple[ClientRole, ...],
    task: str | None,
    *,
    light: bool,
    chunk_size: int,
    seals: bool = False,
    via: str | None = None,
    environment: Environment | None = None,
    requires: RequiredMasking | None = None,
    privacy: OwnPrivacy = NO_PRIVACY,
    survey: SurveyPolicy = USUAL,
) -> Identity:
    """Returns who an edge is, with the tasks and abilities of this installation. ``light``: without those of torch.

    Only torch knows whether the device multiplies bf16 numbers. It is asked when a task has been loaded, so the second
    registration says it.
    """
    return Identity(
        client,
        device,
        roles,
        (
            *(registry.light_names() if light else registry.names()),
            *([task_name(task)] if task is not None else ()),
        ),
        task,
        task_prefixes=(NAME_PREFIX,),
        chunk_size=chunk_size,
        seals=seals,
        environment=environment,
        abilities=tuple(
            name
            for name in (*corrections.names(), CLIP_GRADIENTS, LOGIT_ADJUSTMENT, *([] if light else [BF16]))
            if privacy.examples is None or name not in NOT_WITH_DP_SGD
        ),
        via=via,
        requires=requires,
        privacy=privacy,
        survey=survey,
    )


@dataclass(slots=True, eq=False)
class Edge:
    """One edge, as the runtime's loop sees it.

    ``connect`` and ``connect_predictor`` open its connections; ``connection`` is ``None`` until
    `Runtime.run`. ``server`` is ``None`` if announced models are of no use to the edge; ``predictor`` is
    the same object, if that answers predictions. ``update_file`` keeps its finished update across restarts
    (see `update_store`). ``member``: how it takes part in masked rounds. ``authenticator`` is ``None`` without a kit.
    ``ledger`` is ``None`` if the edge counts nothing.
    """

    state: SessionState
    update_file: Path
    member: MaskedMember
    connect: Callable[[Callable[[EdgeConnectionEvent], None]], EdgeConnection]
    connect_predictor: Callable[[Callable[[mqtt.ConnectionEvent], None]], Connection]
    authenticator: MessageAuthenticator | None = None
    ledger: PrivacyLedger | None = None
    connection: EdgeConnection | None = None
    server: ModelServer | None = None
    predictor: Predictor | None = None
    own_state: OwnStateFiles = field(init=False)
    """What it keeps of a run, beside its update."""
    _local: tuple[StateReference, CacheModel | None] | None = None
    _personal: tuple[StateReference, PersonalModel | None] | None = None
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

    def charge(self, effect: effects.Charge, now: float) -> events.Charged:
        """See `effects.Charge`."""
        assert self.ledger is not None  # only an edge that counts has what costs
        problem = None
        try:
            self.ledger.charge(effect.run, effect.round, effect.digest, effect.charges)
        except OSError as error:
            problem = f"this edge cannot write down what the update costs of its privacy: {error.strerror}"
        return events.Charged(now, effect.digest, problem)

    def partition_of(self, task: str) -> Partition | None:
        """Returns the partition of the data of ``task`` that the edge has loaded, or ``None``."""
        match self.state:
            case Session(partition_state=LoadedPartition(task=loaded, partition=partition)) if loaded == task:
                return partition
            case _:
                return None

    def local_part(self, run: str) -> CacheModel | None:
        """Returns the part of the model of ``run`` that the edge has kept; null if it has none, or must not show it."""
        current = self._own_state_to_show().current
        if current is None or current.run != run:
            return None
        if self._local is None or self._local[0] != current:
            data = self.own_state.current().get(LOCAL)
            self._local = current, None if data is None else vector_frame(data)
        return self._local[1]

    def personal_model(self, run: str, model: FetchedModel) -> PersonalModel | None:
        """Returns what the edge has made of this model of ``run`` with ``--personalize``; null as for `local_part`."""
        kept = self._own_state_to_show().personal
        if kept is None or (kept.run, kept.digest) != (run, model.digest):
            return None
        if self._personal is None or self._personal[0] != kept:
            vectors = self.own_state.personal()
            weights, local = vectors.get(PERSONAL), vectors.get(LOCAL)
            fits = weights is not None and len(weights) == len(model.weights.data)
            self._personal = kept, None
            if weights is not None and fits:
                whole = vector_frame(weights, model.weights.manifest)
                self._personal = kept, PersonalModel(whole, None if local is None else vector_frame(local))
        return self._personal[1]

    def _own_state_to_show(self) -> OwnState:
        """Returns what answers and scores may depend on; nothing if they would tell what is in the edge's updates."""
        match self.state:
            case Session(is_discreet=False, own_state=own):
                return own
            case _:
                return OwnState()

    def say_leaving(self, reason: str) -> None:
        """Says why the edge leaves if it is connected, though its session has not ended."""
        if self.connection is not None and self.is_connected and isinstance(self.state, Session):
            for leaving in leaving_of(self.state, reason):
                self.connection.send(leaving.topic, leaving.message, retain=True)

    @property
    def tells_all(self) -> bool:
        """Whether its log may say of its data what its run is told: it belongs to a run that learns each update."""
        match self.state:
            case Session(is_discreet=False, membership=membership):
                return membership is not None
            case _:
                return False

    @property
    def is_connected(self) -> bool:
        """Whether the connection of the edge's session is up."""
        return self.connection is not None and self.connection.is_connected


def vector_frame(data: memoryview, manifest: Manifest | None = None) -> CacheModel:
    """Returns an encoded vector as a worker is sent it. Only the worker knows which arrays a local part has."""
    if manifest is None:
        manifest = Manifest(arrays=(ArraySpec(name=LOCAL, shape=(len(data) // FLOAT32.size(1),)),))
    return CacheModel(digest_of(data), manifest, SharedBytes.copy_of(data))
