"""How good a version is, on ``fl/evaluations/<client>``."""

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
    metrics: Metrics = Field(default={})
    confusion: Confusion | None = None

    @model_validator(mode="after")
    def _examples_agree(self) -> Self:
        counted = self.examples if self.confusion is None else sum(map(sum, self.confusion.counts))
        if counted != self.examples:
            raise ValueError(f"confusion: {counted} in total, expected {self.examples}, one for each example")
        return self
