"""The opening and the result of a round."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from fl_shared.protocol.kinds.base import (
    ClientId,
    Count,
    Digest,
    EncodingName,
    Fragment,
    Metrics,
    Scoped,
    Seconds,
    TaskName,
    Text,
)

MAX_CLIENTS_NAMED: Final = 256
"""Above so many names the cohort is left out of ``selected`` and each edge is told on its own topic."""


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
    more than 256 names. ``encoding``: of the sections of the round's updates. An update of at most ``inline_limit``
    bytes may be sent whole at once.
    """

    kind: Literal["selected"] = "selected"
    round: Count
    task: TaskName
    cohort: Annotated[tuple[ClientId, ...], Field(max_length=MAX_CLIENTS_NAMED, fail_fast=True)] | None
    seconds_left: Seconds
    training: TrainingSettings
    fold: FoldSettings
    encoding: EncodingName
    base: ModelReference | None
    inline_limit: Count


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
