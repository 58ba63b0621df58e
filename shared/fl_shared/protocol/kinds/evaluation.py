"""Results of evaluations, on ``fl/evaluations/<client>``."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fl_shared.protocol.kinds.base import (
    ClientId,
    Count,
    Digest,
    Fragment,
    Metrics,
    Number,
    Scoped,
    Split,
    Token,
)

MAX_CLASSES: Final = 100
"""The most classes in a confusion matrix."""


class Confusion(Fragment):
    """A confusion matrix: ``counts[i][j]`` examples of the class ``labels[i]`` were predicted as ``labels[j]``."""

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
    """The result of one evaluation of a version on a split that an edge has, on ``fl/evaluations/<client>``.

    ``loss`` is the mean over the examples. ``examples`` is 0 if the edge has no examples or could not evaluate: it
    sends no other result for this version, and the other numbers have no meaning. ``metrics``: those that the task
    declares; one that is not finite on these examples is left out. ``confusion`` is given only for the test split,
    which is not private, and only if the task names its classes. ``before``: on the split ``personal``, the metrics and
    the loss of the version itself; ``metrics`` and ``loss`` are those of the edge's own model then.
    """

    kind: Literal["evaluation"] = "evaluation"
    client: ClientId
    session: Token
    version: Count
    digest: Digest
    split: Split
    examples: Count
    loss: Number
    metrics: Metrics = Field(default={})
    confusion: Confusion | None = None
    before: Metrics | None = None

    @model_validator(mode="after")
    def _examples_agree(self) -> Self:
        counted = self.examples if self.confusion is None else sum(map(sum, self.confusion.counts))
        if counted != self.examples:
            raise ValueError(f"confusion: {counted} in total, expected {self.examples}, one for each example")
        return self
