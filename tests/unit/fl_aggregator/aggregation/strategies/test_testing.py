"""`check` passes every part of ours, and names what a part of somebody does not keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from pydantic import Field

from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.strategies.parts import Block, ClosedRound, Columns, Contribution, Doubles
from fl_aggregator.aggregation.strategies.sums import Mean
from fl_aggregator.aggregation.strategies.testing import check
from fl_shared.cli.specification import make

NEEDED: Mapping[str, Mapping[str, str]] = {
    "krum": {"bad": "1"},
    "bulyan": {"bad": "1"},
    "fair": {"lr": "0.1"},
    "clip": {"norm": "1"},
}
OURS = [(kind, name) for kind, members in registry.PARTS.items() for name in members]


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_every_part_of_ours_keeps_it_all(kind: str, name: str) -> None:
    check(make(kind, name, registry.part_class(kind, name), NEEDED.get(name, {})))


@pytest.mark.parametrize(
    ("name", "fields"),
    [("sgd", {"momentum": "0.9"}), ("krum", {"bad": "0", "keep": "1"}), ("mean", {"equal": "true"})],
)
def test_and_so_do_they_with_other_fields(name: str, fields: Mapping[str, str]) -> None:
    kind = next(kind for kind, members in registry.PARTS.items() if name in members)
    check(make(kind, name, registry.part_class(kind, name), fields))


@dataclass(frozen=True)
class Middle:
    """A good part, which others spoil."""

    def min_updates(self) -> int:
        return 3

    def combine(self, columns: Columns) -> Doubles:
        columns.sort(axis=1)
        return columns[:, columns.shape[1] // 2].astype(np.float64)


@dataclass(frozen=True)
class First(Middle):
    """The update that came first, by name: not by order of arrival, so this is fine."""

    def combine(self, columns: Columns) -> Doubles:
        return columns[:, 0].astype(np.float64)


@dataclass(frozen=True)
class Noisy(Middle):
    def combine(self, columns: Columns) -> Doubles:
        return super().combine(columns) + np.random.default_rng().normal(size=len(columns))


@dataclass(frozen=True)
class Divides(Middle):
    def combine(self, columns: Columns) -> Doubles:
        with np.errstate(all="ignore"):
            spread: Doubles = columns.std(axis=1, dtype=np.float64)
            return super().combine(columns) * spread / spread


@dataclass(frozen=True)
class Doubled(Middle):
    def combine(self, columns: Columns) -> Doubles:
        return 9 * super().combine(columns)


@dataclass(frozen=True)
class Needless(Middle):
    def min_updates(self) -> int:
        return 0


@dataclass(frozen=True)
class Unbounded(Middle):
    share: float = 0.5


@dataclass(frozen=True)
class OutOfRange(Middle):
    share: Annotated[float, Field(gt=0)] = -1.0


@dataclass(frozen=True)
class Unknown(Middle):
    share: object = field(default_factory=object)
    kept: np.random.Generator | None = None


@dataclass(frozen=True)
class Absent(Middle):
    """Its field may be NaN, though it is null."""

    share: float | None = None


@dataclass
class Thawed:
    wants_norms: ClassVar[bool] = False

    def factor(self, update: Contribution) -> float:  # noqa: ARG002
        return 1.0


@dataclass(frozen=True)
class Counts:
    """An optimizer that keeps something in itself."""

    wants_norms: ClassVar[bool] = False
    seen: list[int] = field(default_factory=list)

    def state(self) -> Mapping[str, float]:
        return {}

    def step(self, block: Block, closed: Any) -> None:
        self.seen.append(closed.version)
        block.weights[:] += block.change


@dataclass(frozen=True)
class Grows:
    """A transform that is none."""

    wants_norms: ClassVar[bool] = False

    def factor(self, update: Contribution) -> float:  # noqa: ARG002
        return 1.5


@dataclass(frozen=True)
class Squares(Mean):
    """A sum whose weights are right only for few examples."""

    def weight(self, update: Contribution) -> float:
        return float(update.examples**2)

    def max_weight(self, max_examples: int) -> float:
        return 100.0 * max_examples


@dataclass(frozen=True)
class Undefined(Mean):
    """A sum whose weight is NaN without a loss."""

    def weight(self, update: Contribution) -> float:
        return float("nan") if update.loss is None else 1.0


@dataclass(frozen=True)
class Unlimited(Mean):
    def max_weight(self, max_examples: int) -> float:  # noqa: ARG002
        return float("inf")


@dataclass(frozen=True)
class Elsewhere(Mean):
    from_training: ClassVar[Mapping[str, str]] = {"q": "lr"}


@dataclass(frozen=True)
class NoOption(Mean):
    from_training: ClassVar[Mapping[str, str]] = {"equal": "speed"}


@dataclass(frozen=True)
class Vast(Mean):
    def max_weight(self, max_examples: int) -> float:  # noqa: ARG002
        return 1e300


@dataclass(frozen=True)
class Overflows(Mean):
    """A sum whose divisor is so small that float32 does not hold the change."""

    def divisor(self, closed: ClosedRound) -> float:  # noqa: ARG002
        return 1e-60


@dataclass(frozen=True)
class Keeps:
    """An optimizer that keeps a vector, and says nothing of norms."""

    def state(self) -> Mapping[str, float]:
        return {"change": 0.0}

    def step(self, block: Block, closed: Any) -> None:  # noqa: ARG002
        block.weights[:] += block.change


@dataclass(frozen=True)
class KeepsChange(Keeps):
    wants_norms: ClassVar[bool] = False


@dataclass(frozen=True)
class KeepsControl(KeepsChange):
    def state(self) -> Mapping[str, float]:
        return {"control": 0.0}


def test_good_parts_pass() -> None:
    check(Middle())
    check(First())


BROKEN: list[tuple[Any, str]] = [
    (Noisy(), r"^Noisy: combine\(\): another call gives other bits, expected the same$"),
    (Divides(), "is not finite"),
    (Doubled(), "buffers leave the range"),
    (Needless(), r"min_updates\(\) is 0"),
    (Squares(), r"weight\(\) is \d+\.0 for .*, expected above 0 and at most"),
    (Undefined(), r"weight\(\) is nan"),
    (Unlimited(), r"max_weight\(\) is inf"),
    (Keeps(), "has no wants_norms"),
    (KeepsChange(), r"state\(\) names 'change'"),
    (KeepsControl(), r"state\(\) names 'control'"),
    (Unbounded(), "share may be NaN"),
    (Counts(), "changes its own fields"),
    (Grows(), r"^Grows: factor\(\) is 1.5 for .*, expected 0 to 1$"),
    (Thawed(), "is not frozen"),
    (Middle, "^Middle: is a class"),
    (Unknown(), "^Unknown: its fields cannot be checked, expected types of pydantic: "),
    (Absent(), "^Absent: share may be NaN"),
    (Elsewhere(), r"^Elsewhere: from_training has 'q', expected one of its fields$"),
    (NoOption(), r"^NoOption: from_training has 'speed', expected an option of a run$"),
    (Vast(), r"^Vast: max_weight\(\) is 1e\+300, which leaves -.* expected at least 20$"),
    (Overflows(), "^Overflows: a round with it ends in "),
    (object(), "is no dataclass"),
]


@pytest.mark.parametrize(("part", "said"), BROKEN, ids=lambda one: one if isinstance(one, str) else "")
def test_a_part_that_breaks_a_rule_is_told_which(part: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check(part)


def test_a_part_whose_own_values_are_not_valid_is_told_so() -> None:
    with pytest.raises(AssertionError, match="share"):
        check(OutOfRange())
