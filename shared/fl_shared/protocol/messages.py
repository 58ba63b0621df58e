"""Every message of the protocol, one model a kind (``docs/protocol.md`` numbers the clauses).

Unknown members are ignored, so that later versions may add some (and ``sig``, see `signatures`); what is
known is checked strictly: no string for a number, no NaN, no infinity. ``v`` is the protocol version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from fl_shared.system.text import one_line
from fl_shared.tensors.encodings.registry import Encoding
from fl_shared.tensors.manifest import MAX_ARRAYS, ArraySpec

PROTOCOL_VERSION: Final = 1
MAX_CHUNK: Final = 2**24
"""Bytes of a chunk of a model or an update. Larger packets are slow, and cost everyone on their way a copy."""
MAX_PACKET: Final = MAX_CHUNK + 2**16
"""Bytes of the largest packet that either side takes: a chunk's. Whatever else there is, is smaller."""
MAX_CLIENTS_NAMED: Final = 256
"""Above so many names the cohort is left out of ``selected`` and each edge is told on its own topic."""

MAX_REFUSED_NAMED: Final = 3
"""So many of whom most was refused does a status name."""

ClientId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""A random name: of a session (one connection's life) or of a device."""
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
TaskName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Text = Annotated[str, StringConstraints(max_length=1000), AfterValidator(one_line)]
"""For people: it comes to logs and terminals."""


def _a_time(text: str) -> str:
    datetime.fromisoformat(text)  # its ValueError is what pydantic expects
    return text


Timestamp = Annotated[
    str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"), AfterValidator(_a_time)
]
"""UTC."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False, le=1e9)]
Metrics = Annotated[dict[Annotated[str, StringConstraints(max_length=64)], Number], Field(max_length=64)]
ClientRole = Literal["train", "predict", "evaluate"]
State = Literal["online", "offline"]
Split = Literal["test", "holdout"]

RefusalReason = Literal["id-in-use", "wrong-version", "wrong-task", "wrong-manifest", "no-part-left"]
RejectionReason = Literal[
    "stale-round", "not-selected", "surplus", "late", "duplicate", "wrong-base", "wrong-manifest", "wrong-size",
    "wrong-digest", "not-finite", "too-large", "bad-examples", "malformed", "no-round",
]  # fmt: skip
LimitReason = Literal["too-many-messages", "too-many-bytes", "too-many-registrations", "too-many-presences"]
Phase = Literal[
    "selecting", "collecting", "aggregating", "evaluating", "finished", "failed", "interrupted"
]  # fmt: skip
OVER: Final[tuple[Phase, ...]] = ("finished", "failed", "interrupted")
"""Those of a run's last status."""


class Fragment(BaseModel):
    """A part of a message; also the base of the messages themselves."""

    # Values come from strangers and hardly ever twice: pydantic is not to keep 16,384 of their strings.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", allow_inf_nan=False, cache_strings="keys"
    )


class Message(Fragment):
    v: Literal[1] = PROTOCOL_VERSION
    kind: str


class Scoped(Message):
    """The envelope. ``epoch`` grows at each start of the aggregator; ``seq`` with each message of its sender."""

    run: RunId
    epoch: Annotated[int, Field(ge=1, le=2**53)]
    seq: Count


# --- births and wills -------------------------------------------------------------------------------------


class AggregatorPresence(Message):
    """``fl/aggregator``, retained: the aggregator's birth and its will."""

    kind: Literal["aggregator"] = "aggregator"
    state: State
    session: Token
    run: RunId
    epoch: Annotated[int, Field(ge=1, le=2**53)]


class ClientPresence(Message):
    """``fl/clients/<client>/presence``, retained: an edge's birth and its will."""

    kind: Literal["presence"] = "presence"
    client: ClientId
    state: State
    session: Token


# --- registration -----------------------------------------------------------------------------------------


class Partition(Fragment):
    """Which part of a data set is an edge's: part ``index`` of ``count``, drawn with ``seed`` by ``scheme``.

    ``scheme``: ``iid``, ``shards``, ``dirichlet:ALPHA``, ``quantity:ALPHA``, or ``own`` (all that the edge has).
    ``holdout``: the fraction of the part that is kept for evaluation. ``examples``: use only so many of the data
    set (before it is parted), all if null.
    """

    index: Count
    count: Annotated[int, Field(ge=1, le=1_000_000)]
    scheme: Annotated[str, StringConstraints(max_length=64)]
    seed: Count
    holdout: Annotated[float, Field(ge=0, lt=1)]
    examples: Annotated[int, Field(ge=1, le=2**53)] | None = None


class Registration(Message):
    """``fl/register/<client>``. The first one names no run; the second says what the edge has found out."""

    kind: Literal["register"] = "register"
    run: RunId | None = None
    epoch: Annotated[int, Field(ge=1, le=2**53)] | None = None
    seq: Count
    client: ClientId
    session: Token
    device: Token
    roles: Annotated[tuple[ClientRole, ...], Field(min_length=1, max_length=3)]
    task: TaskName | None = None
    manifest: Digest | None = None
    examples: Count | None = None
    encodings: Annotated[tuple[Annotated[str, StringConstraints(max_length=32)], ...], Field(max_length=32)]


class Reply(Scoped):
    """``fl/replies/<client>``: to one session of one client; other sessions ignore it."""

    client: ClientId
    session: Token


class Admitted(Reply):
    """``partition`` is null for who does not train, and while the parts are not yet given out.

    ``examples``: those of the registration that is answered (null: the first one). ``held``: the open round of
    which the aggregator already holds this client's update.
    """

    kind: Literal["admitted"] = "admitted"
    task: TaskName
    partition: Partition | None
    examples: Count | None = None
    held: Count | None = None


class Refused(Reply):
    kind: Literal["refused"] = "refused"
    reason: RefusalReason
    detail: Text


class Accepted(Reply):
    """The update with this digest is kept: the edge may forget it."""

    kind: Literal["accepted"] = "accepted"
    round: Count
    digest: Digest


class Grant(Reply):
    """These chunks of the offered update may be sent now, once each."""

    kind: Literal["grant"] = "grant"
    round: Count
    digest: Digest
    chunks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=1024, fail_fast=True)]


class Rejected(Reply):
    kind: Literal["rejected"] = "rejected"
    round: Count
    digest: Digest | None
    reason: RejectionReason
    detail: Text


class Limited(Reply):
    """More came than is taken from one client (protocol, 8.8): some of it was dropped unread. Said once in a while."""

    kind: Literal["limited"] = "limited"
    reason: LimitReason
    detail: Text


# --- the round --------------------------------------------------------------------------------------------


class ModelReference(Fragment):
    version: Count
    digest: Digest


class TrainingSettings(Fragment):
    """How the selected edges train: SGD; ``lr`` is this round's learning rate, after any decay."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    lr: Annotated[float, Field(gt=0, le=1e6)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    seed: Count


class FoldSettings(Fragment):
    """The exact fold: examples × delta × 2^scale_bits in int64. What is over the caps is a rejected update."""

    max_examples: Annotated[int, Field(ge=1, le=2**53)]
    max_delta: Annotated[float, Field(gt=0, le=1e30)]
    scale_bits: Annotated[int, Field(ge=-200, le=62)]


class Selected(Scoped):
    """``fl/round/<n>/selected`` (retained until the round's result), or ``fl/clients/<client>/work``.

    ``base`` is null in round 0, whose one selected edge makes the first weights. ``cohort`` is null where it has
    more than 256 names. An update of at most ``inline_limit`` bytes may be sent whole at once.
    """

    kind: Literal["selected"] = "selected"
    round: Count
    task: TaskName
    cohort: Annotated[tuple[ClientId, ...], Field(max_length=MAX_CLIENTS_NAMED, fail_fast=True)] | None
    seconds_left: Seconds
    training: TrainingSettings
    fold: FoldSettings
    base: ModelReference | None
    inline_limit: Count


class ModelAnnouncement(Scoped):
    """``fl/model``, retained: the newest version, and whether (on which split) edges are to evaluate it."""

    kind: Literal["model"] = "model"
    task: TaskName
    round: Count
    version: Count
    digest: Digest
    chunks: Annotated[int, Field(ge=1, le=1_000_000)]
    size: Count
    evaluate: Split | None = None


class SectionManifest(Fragment):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    encoding: Encoding
    arrays: Annotated[tuple[ArraySpec, ...], Field(min_length=1, max_length=MAX_ARRAYS, fail_fast=True)]
    size: Count


class ModelManifest(Scoped):
    """``fl/model/<digest12>/manifest``, retained, msgpack: how the chunks' bytes are to be read."""

    kind: Literal["manifest"] = "manifest"
    digest: Digest
    sections: Annotated[tuple[SectionManifest, ...], Field(min_length=1, max_length=16, fail_fast=True)]
    size: Count
    chunk_size: Annotated[int, Field(ge=1, le=MAX_CHUNK)]
    chunks: Annotated[int, Field(ge=1, le=1_000_000)]


class ModelChunk(Scoped):
    """``fl/model/<digest12>/<index>``, retained, msgpack. ``crc32`` (zlib's) of ``data``."""

    kind: Literal["chunk"] = "chunk"
    digest: Digest
    index: Count
    crc32: Annotated[int, Field(ge=0, lt=2**32)]
    data: bytes


class Section(Fragment):
    """A section of an update. ``arrays`` only where the receiver cannot know them (round 0)."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    encoding: Encoding
    manifest: Digest
    arrays: (
        Annotated[tuple[ArraySpec, ...], Field(min_length=1, max_length=MAX_ARRAYS, fail_fast=True)] | None
    ) = None
    data: bytes


class UpdateMetrics(Fragment):
    """On the edge's holdout: the base model (``before``) and the trained one (``after``); ``train``: its loss."""

    before: Metrics | None = None
    after: Metrics | None = None
    train: Metrics | None = None


class Update(Scoped):
    """``fl/updates/<client>``, msgpack: what an edge learnt, local − base (whole weights in round 0)."""

    kind: Literal["update"] = "update"
    client: ClientId
    session: Token
    round: Count
    base: Digest | None
    digest: Digest
    examples: Count
    steps: Count
    seconds: Seconds
    metrics: UpdateMetrics
    sections: Annotated[tuple[Section, ...], Field(min_length=1, max_length=16, fail_fast=True)]


class UpdateClaim(Fragment):
    """What an update, or an offer of one, says of itself: enough to answer it where the rest cannot be read."""

    v: Literal[1]
    kind: Literal["update", "offer"]
    run: RunId
    epoch: Annotated[int, Field(ge=1, le=2**53)]
    client: ClientId
    session: Token
    round: Count
    digest: Digest


class OfferedSection(Fragment):
    """A section of an offer: all but its data, of which there are ``size`` bytes."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    encoding: Encoding
    manifest: Digest
    arrays: (
        Annotated[tuple[ArraySpec, ...], Field(min_length=1, max_length=MAX_ARRAYS, fail_fast=True)] | None
    ) = None
    size: Count


class Offer(Scoped):
    """``fl/updates/<client>``, msgpack: an update that is to be asked for, all but its data.

    The data of all sections together, ``size`` bytes, is cut every ``chunk_size`` bytes into ``chunks`` chunks.
    """

    kind: Literal["offer"] = "offer"
    client: ClientId
    session: Token
    round: Count
    base: Digest | None
    digest: Digest
    examples: Count
    steps: Count
    seconds: Seconds
    metrics: UpdateMetrics
    sections: Annotated[tuple[OfferedSection, ...], Field(min_length=1, max_length=16, fail_fast=True)]
    size: Count
    chunk_size: Annotated[int, Field(ge=1, le=MAX_CHUNK)]
    chunks: Annotated[int, Field(ge=1, le=1_000_000)]


class UpdateChunk(Scoped):
    """``fl/updates/<client>``, msgpack: one chunk of the update that was offered with this digest, as granted."""

    kind: Literal["part"] = "part"
    client: ClientId
    session: Token
    round: Count
    digest: Digest
    index: Count
    crc32: Annotated[int, Field(ge=0, lt=2**32)]
    data: bytes


class TrainingFailed(Scoped):
    """``fl/updates/<client>``, msgpack: a selected edge cannot train in this round, and why."""

    kind: Literal["failed"] = "failed"
    client: ClientId
    session: Token
    round: Count
    detail: Text


MAX_CLASSES: Final = 100
"""Of a confusion matrix."""


class Confusion(Fragment):
    """``counts[i][j]``: how many examples of the class ``labels[i]`` were taken for ``labels[j]``."""

    labels: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=64)], ...],
        Field(min_length=1, max_length=MAX_CLASSES, fail_fast=True),
    ]
    counts: Annotated[
        tuple[Annotated[tuple[Count, ...], Field(max_length=MAX_CLASSES, fail_fast=True)], ...],
        Field(min_length=1, max_length=MAX_CLASSES, fail_fast=True),
    ]

    @model_validator(mode="after")
    def _square(self) -> Self:
        classes = len(self.labels)
        if len(self.counts) != classes or any(len(row) != classes for row in self.counts):
            raise ValueError(f"counts: expected {classes} rows of {classes}, one for each label")
        return self


class Evaluation(Scoped):
    """``fl/evaluations/<client>``: how one version does on an edge's split. ``loss`` is per example.

    ``examples`` is 0 if the edge has none, or could not evaluate: nothing more is to come, and the rest says nothing.
    ``confusion`` only of the test split, which is nobody's own data, and where the task names its classes.
    """

    kind: Literal["evaluation"] = "evaluation"
    client: ClientId
    session: Token
    version: Count
    digest: Digest
    split: Split
    examples: Annotated[int, Field(ge=0, le=2**53)]
    loss: Number
    accuracy: Annotated[float, Field(ge=0, le=1)]
    metrics: Metrics = {}
    confusion: Confusion | None = None

    @model_validator(mode="after")
    def _of_the_same_examples(self) -> Self:
        counted = self.examples if self.confusion is None else sum(map(sum, self.confusion.counts))
        if counted != self.examples:
            raise ValueError(f"confusion: {counted} in total, expected {self.examples}, one for each example")
        return self


class Result(Scoped):
    """``fl/round/<n>/result``, retained for the last few rounds; sent again when evaluations have come in."""

    kind: Literal["result"] = "result"
    round: Count
    outcome: Literal["committed", "abandoned"]
    reason: Text | None
    version: Count | None
    digest: Digest | None
    participants: Annotated[tuple[ClientId, ...], Field(fail_fast=True)]
    missing: dict[ClientId, Text]
    examples: Count
    metrics: Metrics
    bytes_up: Count
    bytes_down: Count
    seconds: Seconds


class Awaited(Fragment):
    state: State
    seconds: Seconds
    """Since it was selected (online) or lost (offline)."""


class Missing(Scoped):
    """``fl/round/<n>/missing``, retained while the round is open: everyone it still waits for."""

    kind: Literal["missing"] = "missing"
    round: Count
    clients: dict[ClientId, Awaited]


EdgeState = Literal["present", "offline", "selected", "training", "uploading", "in", "missing"]


class EdgeView(Fragment):
    """One edge in the eyes of the aggregator; ``why`` it is missing or offline, or not ready yet.

    The numbers are those of its newest update that was accepted: ``examples`` and ``seconds`` of training, ``bytes``
    of the update, and how the trained model did on what the edge holds out.
    """

    state: EdgeState
    why: Text | None = None
    examples: Count | None = None
    seconds: Seconds | None = None
    bytes: Count | None = None
    accuracy: Number | None = None
    loss: Number | None = None


class Edges(Scoped):
    """``fl/round/<n>/edges``, retained: every edge of the roster, for who watches; at most 2 MiB.

    While the round is about to open or open, and afterwards as it ended. ``left_out``: so many more edges had no
    room in what the broker takes.
    """

    kind: Literal["edges"] = "edges"
    round: Count
    phase: Phase
    edges: dict[ClientId, EdgeView]
    left_out: Count = 0


MAX_HISTORY: Final = 500
"""Rows of `History`; it also has at most 64 KiB."""


class HistoryColumns(Fragment):
    """Equally long arrays, one entry a round. ``version`` is null where a round was abandoned; numbers that nobody
    has measured are null. ``seconds`` without the evaluation, which goes on beside the next round.
    """

    round: tuple[Count, ...] = ()
    version: tuple[Count | None, ...] = ()
    accuracy: tuple[Number | None, ...] = ()
    loss: tuple[Number | None, ...] = ()
    train_loss: tuple[Number | None, ...] = ()
    seconds: tuple[Seconds, ...] = ()
    participants: tuple[Count, ...] = ()
    cohort: tuple[Count, ...] = ()
    bytes_up: tuple[Count, ...] = ()
    bytes_down: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        lengths = {name: len(getattr(self, name)) for name in type(self).model_fields}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"expected equally long arrays, got {lengths}")
        if lengths["round"] > MAX_HISTORY:
            raise ValueError(f"{lengths['round']} rows, expected at most {MAX_HISTORY}")
        return self


class History(Scoped):
    """``fl/history``, retained: the rounds that have ended, for curves. Thinned evenly when there are many.

    ``rounds``: versions that are to be made. ``started``: when the run began, however often it was taken up again.
    """

    kind: Literal["history"] = "history"
    task: TaskName
    rounds: Count
    started: Timestamp
    columns: HistoryColumns


class Status(Scoped):
    """``fl/status``, retained, at most 1 KiB: written on change (at most twice a second) and every 5 s."""

    kind: Literal["status"] = "status"
    written: Timestamp
    task: TaskName
    phase: Phase
    round: Count | None
    version: Count | None
    rounds: Count
    have: Count
    need: Count
    present: Count
    seconds_left: Seconds | None
    missing: Annotated[tuple[ClientId, ...], Field(max_length=10)]
    metrics: Metrics
    paused: Annotated[str, StringConstraints(max_length=300)] | None = None
    """Why the run stands still, and its time with it; null while it goes on."""
    refused: Annotated[
        dict[Annotated[str, StringConstraints(max_length=64)], Count], Field(max_length=MAX_REFUSED_NAMED)
    ] = {}
    """Those of whom most was refused since this start (8.6), and how much."""


# --- the operator -----------------------------------------------------------------------------------------


class Control(Message):
    """``fl/control``, never retained: whoever may write there ends ``run``. ``reason`` is for people.

    ``epoch``: this start of its aggregator only, and not one that takes the run up again; null: any.
    """

    kind: Literal["stop"] = "stop"
    run: RunId
    epoch: Annotated[int, Field(ge=1, le=2**53)] | None = None
    reason: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")] = ""


# --- predictions ------------------------------------------------------------------------------------------


class Prediction(Scoped):
    """The answer to a prediction request, on its Response Topic or ``fl/predictions``: one line of JSON.

    ``sha256`` is that of the request's payload. Either ``label`` and ``probabilities`` are given, or ``error``.
    """

    kind: Literal["prediction"] = "prediction"
    client: ClientId
    sha256: Digest
    version: Count
    label: Annotated[str, StringConstraints(max_length=256), AfterValidator(one_line)] | None = None
    probabilities: Annotated[dict[str, float], Field(max_length=100_000)] | None = None
    error: Text | None = None


class ImageRequest(Fragment):
    """A prediction request in JSON: ``pixels`` is a matrix of grey values, of [r, g, b], or a flat list of a square.

    Values are 0 to 255, or 0 to 1 if none is larger than 1.
    """

    pixels: list[Any]
