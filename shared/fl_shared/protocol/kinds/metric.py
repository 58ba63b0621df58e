"""What a task measures: the declaration of a metric, with its direction, unit and range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, model_validator

from fl_shared.protocol.kinds.base import MAX_METRIC_NAME, Fragment, Number

MAX_DECLARED_METRICS: Final = 32
"""Metrics that a task may declare."""
MAX_DECLARED_NAME: Final = MAX_METRIC_NAME - len("before_")
"""Bytes of a declared metric's name in UTF-8; the aggregator adds ``before_`` in front of some."""
EDGES_METRICS: Final = ("edges_mean", "edges_p10", "edges_worst")
"""Of a round: the mean of the primary metric over the edges, each of which counts the same, its 10th percentile, and
its worst value."""
STALENESS_METRICS: Final = ("staleness_mean", "staleness_max")
"""Of a round of an asynchronous run: how many versions had been made since the bases of its updates."""
PACE_METRICS: Final = ("pace_deadline", "pace_over_select")
"""Of a round whose deadline (in seconds) and number of extra edges follow from earlier rounds."""
STANDARD_ERROR: Final = "standard_error"
"""Of the primary metric of a version, whose mean over edges has noise."""
RESERVED_METRICS: Final = frozenset(
    {
        "loss",
        STANDARD_ERROR,
        "examples",
        "evaluated_examples",
        "version",
        *EDGES_METRICS,
        *STALENESS_METRICS,
        *PACE_METRICS,
    }
)
RESERVED_PREFIXES: Final = ("before_", "after_", "train_")
"""Names of metrics that the programs measure themselves begin so, or are `RESERVED_METRICS`."""


MAX_UNIT: Final = 16
"""Bytes of a unit in UTF-8."""


def _printable(text: str, info: ValidationInfo) -> str:
    most = MAX_UNIT if info.field_name == "unit" else MAX_DECLARED_NAME
    if not text.isprintable() or text != text.strip() or len(text.encode()) > most:
        raise ValueError(f"expected printable text of at most {most} bytes, without spaces around it")
    return text


def _free(name: str) -> str:
    if name in RESERVED_METRICS or name.startswith(RESERVED_PREFIXES):
        raise ValueError(f"{name!r} has a meaning of its own, expected another name")
    return name


MetricName = Annotated[
    str,
    StringConstraints(min_length=1),
    AfterValidator(_printable),
]


class MetricDeclaration(Fragment):
    """A metric: its name, whether a higher value is better, its unit, and its least and greatest value (null: any).

    The unit ``%`` says that the value is a fraction: 0.25 is 25 %. An empty unit: a number without one.
    """

    name: MetricName
    higher_is_better: bool = True
    unit: Annotated[str, AfterValidator(_printable)] = ""
    minimum: Number | None = None
    maximum: Number | None = None

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError(f"maximum: {self.maximum:g}, expected more than the minimum {self.minimum:g}")
        return self

    def contains(self, value: float) -> bool:
        """Whether ``value`` is in the declared range."""
        return (self.minimum is None or self.minimum <= value) and (
            self.maximum is None or value <= self.maximum
        )

    @property
    def is_fraction(self) -> bool:
        """Whether each value is from 0 to 1."""
        return (
            self.minimum is not None and self.minimum >= 0 and self.maximum is not None and self.maximum <= 1
        )

    def is_better(self, value: float, other: float) -> bool:
        """Whether ``value`` is better than ``other``; an equal one is not."""
        return value > other if self.higher_is_better else value < other

    @property
    def range_text(self) -> str:
        """The declared range for people: ``0 to 1``, ``at least 0``, ``any number``."""
        match self.minimum, self.maximum:
            case None, None:
                return "any number"
            case float(low), None:
                return f"at least {low:g}"
            case None, float(high):
                return f"at most {high:g}"
            case low, high:
                return f"{low:g} to {high:g}"


def _usable(declared: tuple[MetricDeclaration, ...]) -> tuple[MetricDeclaration, ...]:
    names = [_free(metric.name) for metric in declared]
    if len(set(names)) < len(names):
        raise ValueError(f"{', '.join(names)}: expected names that differ")
    return declared


DeclaredMetrics = Annotated[
    tuple[MetricDeclaration, ...],
    Field(max_length=MAX_DECLARED_METRICS, fail_fast=True),
    AfterValidator(_usable),
]
"""The metrics of a task. The first one is the primary metric."""
LOSS: Final = MetricDeclaration(name="loss", higher_is_better=False)
"""The mean loss, which every evaluation has; the primary metric of a task that declares none."""


def primary_of(declared: Sequence[MetricDeclaration]) -> MetricDeclaration:
    """Returns the metric by which versions are compared: the first declared one, or the loss."""
    return declared[0] if declared else LOSS


def metrics_text(declared: Sequence[MetricDeclaration]) -> str:
    """The declarations for people: ``mae (kWh, lower is better, at least 0), r2 (higher is better)``; or ``none``."""
    texts = []
    for metric in declared:
        details = [metric.unit] if metric.unit else []
        details.append("higher is better" if metric.higher_is_better else "lower is better")
        if metric.minimum is not None or metric.maximum is not None:
            details.append(metric.range_text)
        texts.append(f"{metric.name} ({', '.join(details)})")
    return ", ".join(texts) or "none"
