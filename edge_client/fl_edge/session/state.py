"""The state of one edge: five small machines side by side, since a connection may break during training.

``registration`` says how far the edge is with the broker and the aggregator, ``partition_state`` which data
it has, ``work`` what it does in the round, ``unmasking`` what it is asked for the sum of a round, and ``evaluation``
which model it evaluates. ``Stopped`` is the end of all five.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fl_edge.session.masking import MaskedRun
from fl_edge.session.policy import RequiredMasking
from fl_edge.session.privacy import NO_PRIVACY, Charge, OwnPrivacy
from fl_edge.session.survey import USUAL, SurveyPolicy, hides_figures
from fl_edge.session.work import (
    Calm,
    EvaluationState,
    Idle,
    NotEvaluating,
    OwnState,
    PendingUpdate,
    Recipient,
    Reporting,
    Unmasking,
    Work,
)
from fl_shared.protocol import messages as m
from fl_shared.protocol.task_spec import own_options, task_name
from fl_shared.system.frozen import replace
from fl_shared.tensors.encodings import registry
from fl_shared.tensors.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the edge is, and what it can do.

    ``task`` is the only task that it accepts; ``None`` for any. ``tasks`` are the names of the tasks that it
    has; ``task_prefixes`` are prefixes that name a task together with any number. ``chunk_size`` is the
    preferred size of an update's chunks, in bytes; they are smaller if the broker requires it. ``encodings``
    are those in which it can send updates, ``abilities`` what it can do in training, in some tasks at least. ``seals``:
    whether it encrypts what it sends to the aggregator. ``edges``: it is a regional aggregator, which stands for so
    many edges; ``None`` for an edge. ``via``: the name of its broker, if that is bridged to the aggregator's.
    ``environment``: where it runs. ``requires``: the masked rounds that it takes part in; ``None`` for any round.
    ``privacy``: what it does for that of its own data. ``survey``: the surveys that it takes part in.
    """

    client: str
    device: str
    roles: tuple[m.ClientRole, ...]
    tasks: tuple[str, ...]
    task: str | None = None
    task_prefixes: tuple[str, ...] = ()
    chunk_size: int = 2**20
    encodings: tuple[str, ...] = field(default_factory=registry.names)
    seals: bool = False
    abilities: tuple[str, ...] = ()
    edges: int | None = None
    via: str | None = None
    environment: m.Environment | None = None
    requires: RequiredMasking | None = None
    privacy: OwnPrivacy = NO_PRIVACY
    survey: SurveyPolicy = USUAL

    @property
    def trains(self) -> bool:
        """Whether the edge has the role ``train``."""
        return "train" in self.roles

    def has_task(self, task: str) -> bool:
        """Whether the edge has the task, whose name is listed or made of a prefix and a number.

        A regional aggregator has any: its edges train it, and say themselves what they lack.
        """
        if self.edges is not None:
            return True
        name = task_name(task)
        return name in self.tasks or any(
            name.startswith(family) and name.removeprefix(family).isdecimal() for family in self.task_prefixes
        )

    def requires_other_task(self, task: str) -> bool:
        """Whether the edge's own ``task`` is another one."""
        return self.task is not None and task_name(self.task) != task_name(task)

    def names_task(self, task: str) -> bool:
        """Whether the edge's own ``task`` is this one, with the same options of the task."""
        return self.task is not None and own_options(self.task) == own_options(task)


# --- registration -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ActiveConnection:
    """A live connection, known by the name of its ``session``.

    ``maximum_packet_size`` is the largest packet that the broker accepts, in bytes; ``None`` for no limit.
    """

    session: str
    maximum_packet_size: int | None = None


@dataclass(frozen=True, slots=True)
class Offline:
    """There is no connection to the broker."""


@dataclass(frozen=True, slots=True)
class Registering:
    """The first registration has been sent, and waits for its answer.

    It is sent again at ``due``; ``attempt`` counts the repetitions so far.
    """

    connection: ActiveConnection
    attempt: int
    due: float


@dataclass(frozen=True, slots=True)
class AwaitingPartition:
    """The edge is admitted, but partitions are not assigned yet.

    It registers again from time to time, since the reply with its partition may get lost.
    """

    connection: ActiveConnection
    attempt: int
    due: float


@dataclass(frozen=True, slots=True)
class Loading:
    """The edge is admitted, and its partition is being loaded, or its keys of the run are being made."""

    connection: ActiveConnection


@dataclass(frozen=True, slots=True)
class Confirming:
    """The second registration, with manifest and examples, has been sent and waits for its answer."""

    connection: ActiveConnection
    attempt: int
    due: float


@dataclass(frozen=True, slots=True)
class RegistrationComplete:
    """The edge has nothing more to register; if it trains, it may be selected."""

    connection: ActiveConnection


Fault = Literal["run", "data", "either"]
"""Why an edge cannot take part: the run is not for it, its own data cannot be read, or they do not fit each other."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The edge does not take part in this run, and waits for another one or for another start of its aggregator.

    The aggregator is told the ``reason`` again at ``due``, after ``attempt`` repetitions, until it answers with a
    refusal; then ``due`` is ``None``. The edge may end then, depending on the ``fault``.
    """

    connection: ActiveConnection
    run: str
    incarnation: int
    reason: str
    attempt: int
    due: float | None
    fault: Fault = "run"


@dataclass(frozen=True, slots=True)
class AwaitingPlace:
    """The run has no partition left; the edge asks again at ``due``, since another edge may give its own back."""

    connection: ActiveConnection
    attempt: int
    due: float


AdmittedPhase = AwaitingPartition | Loading | Confirming | RegistrationComplete
"""The phases in which the aggregator has admitted this session."""
RegistrationPhase = Offline | Registering | Declined | AwaitingPlace | AdmittedPhase
"""How far the edge is with the broker and the aggregator."""


@dataclass(frozen=True, slots=True)
class Membership:
    """The run and the incarnation that admitted the edge, with the task and partition that they assigned.

    It outlives the connection. ``masked``: updates of the run are masked. ``private``: it has differential
    privacy.
    """

    run: str
    incarnation: int
    task: str
    partition: m.Partition | None
    masked: bool = False
    private: bool = False


# --- the partition ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoPartition:
    """The edge has no partition, and is not loading one."""


@dataclass(frozen=True, slots=True)
class LoadingPartition:
    """Job ``job`` loads the partition, after ``failures`` attempts that failed.

    ``run_weights``: what it compares the weights of the task's model with.
    """

    job: int
    task: str
    partition: m.Partition
    failures: int = 0
    run_weights: Manifest | None = None


@dataclass(frozen=True, slots=True)
class LoadedPartition:
    """The partition is loaded, with ``examples`` for training and ``holdout`` for evaluation.

    ``manifest`` is the digest of the manifest of the task's weights, which are ``values`` numbers, ``metrics`` are
    those that the task declares, ``abilities`` what its training can do besides plain SGD, ``local`` the names of the
    arrays of its model that stay on the edge.
    """

    task: str
    partition: m.Partition
    examples: int
    holdout: int
    manifest: str
    metrics: tuple[m.MetricDeclaration, ...] = ()
    abilities: tuple[str, ...] = ()
    values: int = 0
    local: tuple[str, ...] = ()


PartitionState = NoPartition | LoadingPartition | LoadedPartition


# --- the session ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RetainedMessages:
    """What the broker retains of one incarnation, which may be received before the edge is admitted.

    ``selected`` and ``announced`` are the newest of their kind.
    """

    run: str
    incarnation: int
    selected: m.Selected | None = None
    on_own_topic: bool = False
    """Whether ``selected`` came on the edge's own topic, which only a selected edge receives."""
    announced: m.ModelAnnouncement | None = None


@dataclass(frozen=True)
class Session:
    """The state of one edge while it runs.

    ``seq`` is the sequence number of the next message, ``job`` the number of the next job. The edge takes up
    no work for the round ``last_handled_round`` of its run or an earlier one, and no ticket of the round
    ``last_answered_round`` or an earlier one: tickets outlive rounds. ``aggregator`` is the newest presence seen on
    this connection. ``restored_update`` is what an earlier process of this edge had finished; it waits until an
    admission shows whether its run still exists. ``own_state``: what it keeps of a run. ``masked_run``: what it has
    of a run whose updates are masked. ``charged``: what its updates have cost, over all runs. ``examples_spent``: why
    it hides no more examples; ``None`` if it may. ``bridge_lost``: whether the bridge of its broker was lost, and is
    not back. ``failures``: why it could not train in the last rounds, if that was the same, and in how many.
    """

    identity: Identity
    seq: int = 0
    job: int = 0
    registration: RegistrationPhase = Offline()
    membership: Membership | None = None
    partition_state: PartitionState = NoPartition()
    work: Work = field(default_factory=Idle)
    unmasking: Unmasking = field(default_factory=Calm)
    evaluation: EvaluationState = field(default_factory=NotEvaluating)
    last_handled_round: int = -1
    last_answered_round: int = -1
    retained_messages: tuple[RetainedMessages, ...] = ()
    aggregator: m.AggregatorPresence | None = None
    restored_update: PendingUpdate | None = None
    own_state: OwnState = field(default_factory=OwnState)
    masked_run: MaskedRun | None = None
    charged: tuple[Charge, ...] = ()
    examples_spent: str | None = None
    bridge_lost: bool = False
    failures: tuple[str, int] = ("", 0)

    @property
    def connection(self) -> ActiveConnection | None:
        """The live connection; ``None`` while the edge is offline."""
        return None if isinstance(self.registration, Offline) else self.registration.connection

    def recipient(self) -> Recipient | None:
        """Returns the recipient of messages about rounds, or ``None`` if the edge is not admitted."""
        if self.membership is None or not isinstance(self.registration, AdmittedPhase):
            return None
        return Recipient(
            self.registration.connection.session, self.membership.run, self.membership.incarnation
        )

    @property
    def is_discreet(self) -> bool:
        """Whether the edge says nothing of its data but its update: how many examples it has, or its scores.

        In masked rounds, in runs with differential privacy, in surveys unless its user allows more, and if its user has
        asked for it.
        A restarted edge takes the run whose keys it has for its own until it is admitted.
        """
        is_masked = self.masked_run is not None if self.membership is None else self.membership.masked
        is_private = self.membership is not None and self.membership.private
        own = self.identity.requires is not None or self.identity.privacy.is_asked
        if own or is_masked or is_private:
            return True
        return self.membership is not None and hides_figures(self.identity, self.membership.task)

    def pending_update(self) -> PendingUpdate | None:
        """Returns the update that must outlive this process because it is not answered yet, or ``None``."""
        match self.work:
            case Reporting(selected=selected, update=update):
                return PendingUpdate(selected, update)
            case _:
                return self.restored_update

    def answered(self, number: int) -> Session:
        """Returns the session after the aggregator has answered the work of round ``number``."""
        return replace(
            self,
            last_handled_round=max(self.last_handled_round, number),
            last_answered_round=max(self.last_answered_round, number),
        )

    def own_retained_messages(self) -> RetainedMessages | None:
        """Returns the retained messages of the incarnation that admitted the edge, or ``None``."""
        for messages in self.retained_messages:
            if self.membership and (messages.run, messages.incarnation) == (
                self.membership.run,
                self.membership.incarnation,
            ):
                return messages
        return None


@dataclass(frozen=True, slots=True)
class Stopped:
    """The edge has ended.

    ``exit_code`` is 130 if it was asked to stop, and 2 after a user's mistake.
    """

    identity: Identity
    exit_code: int
    reason: str


SessionState = Session | Stopped
