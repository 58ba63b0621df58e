"""The opening and the result of a round."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from fl_shared.protocol.kinds.base import (
    AbilityName,
    ClientId,
    Count,
    Digest,
    EncodingChoice,
    Fragment,
    Metrics,
    Number,
    Scoped,
    Seconds,
    SectionName,
    Split,
    TaskSpec,
    Text,
)
from fl_shared.protocol.kinds.masked import Masking
from fl_shared.protocol.kinds.metric import MetricDeclaration
from fl_shared.protocol.kinds.privacy import PrivacySpent, RoundPrivacy
from fl_shared.tensors.encodings.masked import Bits

Precision = Literal["float32", "bf16"]

MAX_COMPANIONS: Final = 4
"""Vectors that a correction publishes besides the model."""
MAX_CLIENTS_NAMED: Final = 256
"""The most names in ``cohort``. A larger cohort is not listed, and each edge is told on its own topic."""


class ModelReference(Fragment):
    """A model: its version and its digest (protocol, 3.4)."""

    version: Count
    digest: Digest


class TrainingRequest(Fragment):
    """How the selected edges train, by SGD. Null: as the task suggests, of which only edges know.

    ``lr_factor``: what the learning rate of this round is multiplied by, its decay. ``clip_gradients``: the greatest
    L2 norm of a gradient; 0: any. ``logit_adjustment``: how much the edge's own frequencies of the classes count in the
    loss; 0: not at all. ``precision``: of the products in training; weights and updates are float32 in any case.
    """

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] | None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None
    lr: Annotated[float, Field(gt=0, le=1e6)] | None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None
    lr_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    clip_gradients: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    logit_adjustment: Annotated[float, Field(ge=0, le=100)] = 0.0
    precision: Precision = "float32"
    seed: Count


class TrainingSettings(Fragment):
    """How an edge trains, by SGD. ``lr``: the learning rate of the round, after any decay.

    ``logit_adjustment``: see `TrainingRequest`; `fl_edge.tasks.sgd.sgd` does it.
    """

    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    lr: Annotated[float, Field(gt=0, le=1e6)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    seed: Count
    logit_adjustment: Annotated[float, Field(ge=0, le=100)] = 0.0


class Correction(Fragment):
    """What the selected edges add to their gradients, by name: code of their own, with these settings."""

    name: AbilityName
    settings: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")], Number],
        Field(max_length=16),
    ]


class Companion(Fragment):
    """A vector that belongs to the base: an object of its own at the broker, with one section, and this digest."""

    section: SectionName
    digest: Digest


class CountedUpdate(Fragment):
    """An update that is in a version of the model."""

    round: Count
    digest: Digest


class FoldSettings(Fragment):
    """How updates are added exactly: examples × delta × 2^scale_bits, in integers of ``bits`` bits.

    An update with more than ``max_examples`` is rejected, and one with a value of greater magnitude than ``max_delta``
    in a parameter, or than ``max_buffer`` in a buffer. Buffers' values above ``max_delta`` are split (protocol, 5.10).
    """

    max_examples: Annotated[int, Field(ge=1, le=2**53)]
    max_delta: Annotated[float, Field(gt=0, le=1e30)]
    max_buffer: Annotated[float, Field(gt=0, le=1e30)] = 1e12
    scale_bits: Annotated[int, Field(ge=-200, le=62)]
    bits: Bits = 64


class Selected(Scoped):
    """The opening of a round, retained on ``fl/round/<n>/selected`` or ``fl/clients/<client>/work`` until its result.

    ``base`` is null in round 0, in which one selected edge makes the first weights. ``cohort`` is null if it would
    have more than 256 names; then each of them gets it on its own topic. ``encoding``: of the section ``delta`` of the
    round's updates. An update of at most ``inline_limit`` bytes may be sent whole, without an offer. ``correction``:
    null in round 0, and without one. ``companions``: the vectors that it needs besides the base, if there are any yet.
    ``ticket``: it is for one edge of an asynchronous run, and outlives the round (protocol, 5.19); ``cohort`` is null.
    ``masked``: how updates are masked; null if they are not. ``privacy``: how they are clipped, and the noise of their
    sum; null in round 0, and without differential privacy.
    """

    kind: Literal["selected"] = "selected"
    round: Count
    task: TaskSpec
    cohort: Annotated[tuple[ClientId, ...], Field(max_length=MAX_CLIENTS_NAMED, fail_fast=True)] | None
    seconds_left: Seconds
    training: TrainingRequest
    fold: FoldSettings
    encoding: EncodingChoice
    base: ModelReference | None
    inline_limit: Count
    correction: Correction | None = None
    companions: Annotated[tuple[Companion, ...], Field(max_length=MAX_COMPANIONS, fail_fast=True)] = ()
    ticket: bool = False
    masked: Masking | None = None
    privacy: RoundPrivacy | None = None


MAX_OUTLIERS: Final = 20
"""The most edges that a result names as unlike the others."""


MAX_WORST_EDGES: Final = 3
"""The most edges that a result names with the worst values."""


class Result(Scoped):
    """The result of a round, retained on ``fl/round/<n>/result`` for the last eight rounds.

    It is published again, with more ``metrics``, when evaluations of its version have arrived, on ``split``. Of them,
    ``primary`` is the one by which versions are compared. ``outliers``: the edges whose updates are unlike the others,
    with the reason; empty if they were not compared. ``worst_edges``: the edges with the worst values of ``primary`` on
    their own holdouts, the worst first; ``metrics`` has `EDGES_METRICS` of all edges that measured it. ``masked``: the
    aggregator has seen the sum of the updates only. ``privacy``: what the versions up to this one have told about an
    edge; null without differential privacy. ``secret``: who took part is not said, nor how many, nor how long.
    """

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
    primary: MetricDeclaration | None = None
    split: Split | None = None
    outliers: Annotated[dict[ClientId, Text], Field(max_length=MAX_OUTLIERS)] = Field(default={})
    worst_edges: Annotated[dict[ClientId, Number], Field(max_length=MAX_WORST_EDGES)] = Field(default={})
    masked: bool = False
    privacy: PrivacySpent | None = None
    secret: bool = False
    bytes_up: Count
    bytes_down: Count
    seconds: Seconds
