"""`check` says in one sentence what a part returns or changes wrongly: the part, its method, and what was expected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_aggregator.aggregation.strategies.coordinates import Median
from fl_aggregator.aggregation.strategies.corrections import Scaffold
from fl_aggregator.aggregation.strategies.optimizers import Sgd
from fl_aggregator.aggregation.strategies.parts import Block, ClosedRound, Columns, Contribution, Doubles
from fl_aggregator.aggregation.strategies.sums import Mean, Sum
from fl_aggregator.aggregation.strategies.testing import check


@dataclass(frozen=True)
class Step:
    """A good optimizer, which others spoil."""

    wants_norms: ClassVar[bool] = False

    def state(self) -> Mapping[str, float]:
        return {"speed": 0.0}

    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.state["speed"][:] += block.change
        block.weights[:] += 0.1 * block.state["speed"]


@dataclass(frozen=True)
class Rebinds(Step):
    """This does no harm."""

    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.state["speed"] = block.state["speed"] + block.change  # type: ignore[index]
        block.weights[:] += block.state["speed"]


@dataclass(frozen=True)
class ByMeanNorm(Step):
    wants_norms: ClassVar[bool] = True

    def step(self, block: Block, closed: ClosedRound) -> None:
        assert closed.mean_norm is not None
        block.weights[:] += block.change / max(closed.mean_norm, 1.0)

    def report(self, closed: ClosedRound) -> Mapping[str, float]:
        return {"length": np.float64(closed.mean_norm or 0.0), "infinite": float("inf")}


@dataclass(frozen=True)
class ByBlockNorm(Step):
    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.weights[:] += block.change / (1.0 + np.linalg.norm(block.change))


@dataclass(frozen=True)
class SlowlyByBlockNorm(Step):
    """Its steps are too small for float32 to show that they differ."""

    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.weights[:] += 1e-9 * block.change / (1.0 + np.linalg.norm(block.change))


@dataclass(frozen=True)
class MomentumByBlock(Step):
    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.state["speed"][:] += block.change.mean()


@dataclass(frozen=True)
class Indexed(Step):
    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.weights[3] += block.change[3]


@dataclass(frozen=True)
class UndeclaredMeanNorm(ByMeanNorm):
    wants_norms: ClassVar[bool] = False


@dataclass(frozen=True)
class NormsOrNot(Step):
    def step(self, block: Block, closed: ClosedRound) -> None:
        block.weights[:] += block.change * sum(update.norm or 0.0 for update in closed.contributions)


@dataclass(frozen=True)
class Assigns(Step):
    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.weights = block.weights + block.change  # type: ignore[misc]


@dataclass(frozen=True)
class Adds(Step):
    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.state["other"] = block.change.copy()  # type: ignore[index]


@dataclass(frozen=True)
class Lone(Step):
    """It takes the vectors of other parts for its own."""

    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        for vector in block.state.values():
            vector *= 0.9


@dataclass(frozen=True)
class Scales(Step):
    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        np.multiply(block.change, 0.5, out=block.change)
        block.weights[:] += block.change


@dataclass(frozen=True)
class Explodes(Step):
    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.weights[:] += 1e300


@dataclass(frozen=True)
class Reshapes(Step):
    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.state["speed"] = block.change.mean(keepdims=True).repeat(2)  # type: ignore[index]


@dataclass(frozen=True)
class Listed(Step):
    def state(self) -> Any:
        return ["speed"]


@dataclass(frozen=True)
class BeginsWithNothing(Step):
    def state(self) -> Any:
        return {"speed": None}


@dataclass(frozen=True)
class BeginsTooLarge(Step):
    def state(self) -> Mapping[str, float]:
        return {"speed": 1e300}


@dataclass(frozen=True)
class Header(Step):
    def state(self) -> Mapping[str, float]:
        return {"__metadata__": 0.0}


@dataclass(frozen=True)
class Silent(Step):
    def report(self, closed: ClosedRound) -> Mapping[str, float]:
        raise KeyError(closed.version)


@dataclass(frozen=True)
class Wordy(Step):
    def report(self, closed: ClosedRound) -> Any:  # noqa: ARG002
        return {"pace": "quick"}


@dataclass(frozen=True)
class SaysNothing(Step):
    def report(self, closed: ClosedRound) -> Any:
        """Forgets to return."""


@dataclass(frozen=True)
class ReportsNorms(Step):
    def report(self, closed: ClosedRound) -> Any:
        return {"length": closed.mean_norm}


@dataclass(frozen=True)
class Moves(Scaffold):
    def absorb(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.weights[:] += 1e-12 * block.sections["control"]


@dataclass(frozen=True)
class ControlByBlock(Scaffold):
    def absorb(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.state["control"][:] = block.sections["control"] - block.sections["control"].mean()


@dataclass(frozen=True)
class ControlByNorms(Scaffold):
    def absorb(self, block: Block, closed: ClosedRound) -> None:
        block.state["control"][:] = block.sections["control"] * sum(one.norm for one in closed.contributions)  # type: ignore[misc]


@dataclass(frozen=True)
class BestColumn(Median):
    """The update that is the shortest in the block."""

    def combine(self, columns: Columns) -> Doubles:
        return columns[:, int(np.argmin(np.square(columns).sum(axis=0)))].astype(np.float64)


@dataclass(frozen=True)
class Transposed(Median):
    def combine(self, columns: Columns) -> Doubles:
        return np.asarray(columns.mean(axis=0, dtype=np.float64))


@dataclass(frozen=True)
class AsList(Median):
    def combine(self, columns: Columns) -> Any:
        return super().combine(columns).tolist()


@dataclass(frozen=True)
class Single(Median):
    def combine(self, columns: Columns) -> Any:
        return super().combine(columns).astype(np.float32)


@dataclass(frozen=True)
class Squeezed(Median):
    """It takes a block of one coordinate for something else."""

    def combine(self, columns: Columns) -> Doubles:
        return np.asarray(super().combine(columns).squeeze())


@dataclass(frozen=True)
class Chooses(Median):
    """A good selection, which others spoil."""

    def choose(self, gram: Doubles) -> NDArray[np.intp]:
        return np.sort(np.argsort(np.diag(gram), kind="stable")[:3])


@dataclass(frozen=True)
class Outside(Chooses):
    def choose(self, gram: Doubles) -> NDArray[np.intp]:
        return np.arange(len(gram) + 1)


@dataclass(frozen=True)
class Negative(Chooses):
    def choose(self, gram: Doubles) -> NDArray[np.intp]:  # noqa: ARG002
        return np.array([-1, 0])


@dataclass(frozen=True)
class Descending(Chooses):
    def choose(self, gram: Doubles) -> NDArray[np.intp]:
        return np.arange(len(gram))[::-1]


@dataclass(frozen=True)
class ChoosesNone(Chooses):
    def choose(self, gram: Doubles) -> NDArray[np.intp]:  # noqa: ARG002
        return np.array([], np.intp)


@dataclass(frozen=True)
class ByMask(Chooses):
    def choose(self, gram: Doubles) -> Any:
        return np.diag(gram) > 0


@dataclass(frozen=True)
class EqualWeights:
    """A good combination by inner products, which others spoil."""

    remembers: ClassVar[bool] = False

    def min_updates(self) -> int:
        return 1

    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:  # noqa: ARG002
        return np.full(len(gram), 1.0 / len(gram))


@dataclass(frozen=True)
class Square(EqualWeights):
    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:  # noqa: ARG002
        return np.asarray(gram / gram.sum())


@dataclass(frozen=True)
class ListOfWeights(EqualWeights):
    def weights(self, gram: Doubles, closed: ClosedRound) -> Any:
        return super().weights(gram, closed).tolist()


@dataclass(frozen=True)
class NotFinite(EqualWeights):
    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:  # noqa: ARG002
        return np.full(len(gram), np.inf)


@dataclass(frozen=True)
class Remembers(EqualWeights):
    """It forgets that the last change has a weight, too."""

    remembers: ClassVar[bool] = True

    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:  # noqa: ARG002
        count = len(closed.contributions)
        return np.full(count, 1.0 / count)


@dataclass(frozen=True)
class WeightsByNorm(EqualWeights):
    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:  # noqa: ARG002
        norms = np.array([one.norm for one in closed.contributions]) + 1.0
        return np.asarray(norms / norms.sum())


@dataclass(frozen=True)
class WeightsByLoss(EqualWeights):
    """It takes for granted that each edge has a loss."""

    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:  # noqa: ARG002
        return np.array([1.0 / (1.0 + one.loss) for one in closed.contributions])  # type: ignore[operator]


@dataclass(frozen=True)
class NoNumber(EqualWeights):
    def min_updates(self) -> Any:
        return "3"


@dataclass(frozen=True)
class Helpless(EqualWeights):
    def min_updates(self) -> int:
        raise NotImplementedError


@dataclass(frozen=True)
class Forgetful:
    """It has no ``remembers``."""

    def min_updates(self) -> int:
        return 1

    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:  # noqa: ARG002
        return np.ones(len(gram))


@dataclass(frozen=True)
class Undivided(Mean):
    def divisor(self, closed: ClosedRound) -> float:  # noqa: ARG002
        return 0.0


@dataclass(frozen=True)
class Backwards(Mean):
    def divisor(self, closed: ClosedRound) -> float:
        return -super().divisor(closed)


@dataclass(frozen=True)
class Infinite(Mean):
    def divisor(self, closed: ClosedRound) -> float:  # noqa: ARG002
        return float("inf")


@dataclass(frozen=True)
class NoDivisor(Mean):
    def divisor(self, closed: ClosedRound) -> Any:
        """Forgets to return."""


@dataclass(frozen=True)
class WeighsByNorm(Mean):
    def weight(self, update: Contribution) -> float:
        return 1.0 / (1.0 + update.norm)  # type: ignore[operator]


@dataclass(frozen=True)
class WeighsByAnyNorm(Mean):
    """Its weight is within `max_weight` only for updates that are not long."""

    wants_norms: ClassVar[bool] = True

    def weight(self, update: Contribution) -> float:
        assert update.norm is not None
        return 1.0 + update.norm

    def max_weight(self, max_examples: int) -> float:  # noqa: ARG002
        return 100.0


@dataclass(frozen=True)
class ScalesByNorm:
    wants_norms: ClassVar[bool] = False

    def factor(self, update: Contribution) -> float:
        assert update.norm is not None
        return 1.0 / (1.0 + update.norm)


@dataclass(frozen=True)
class ScalesByLoss(ScalesByNorm):
    """Its factor is above 1 only for a small loss."""

    def factor(self, update: Contribution) -> float:
        return 1.0 if update.loss is None else 0.4 / (0.1 + update.loss)


@dataclass(frozen=True)
class Perhaps(ScalesByNorm):
    wants_norms: ClassVar[Any] = "yes"


USES = "uses norms, which are null unless a part wants them, expected"
DECLARES = f"{USES} wants_norms: ClassVar[bool] = True"
BROKEN: list[tuple[Any, str]] = [
    (
        ByBlockNorm(),
        "step() makes * of coordinate 0 in a block of 21, and * in a block of 1 (block.weights), expected *",
    ),
    (
        SlowlyByBlockNorm(),
        "step() makes * in a block of 1 (block.weights), expected the same: each coordinate by itself",
    ),
    (MomentumByBlock(), "step() makes * in a block of 1 (block.state['speed']), expected the same: *"),
    (
        Indexed(),
        "step() raises IndexError: *, expected that it changes block.weights and its vectors in place",
    ),
    (UndeclaredMeanNorm(), f"step() {DECLARES}"),
    (NormsOrNot(), f"step() {DECLARES}"),
    (Assigns(), "step() raises FrozenInstanceError: *, expected that it changes block.weights and *"),
    (Adds(), "step() leaves ['change', 'speed', 'other'] in block.state, expected ['change', 'speed']"),
    (Lone(), "step() changes block.state['change'], expected that it stays"),
    (Scales(), "step() changes block.change, expected that it stays"),
    (
        Explodes(),
        "after step(), block.weights is not finite: 1e+300 at index 0, expected values that float32 can hold",
    ),
    (
        Reshapes(),
        "after step(), block.state['speed'] has the shape (2,), expected an array of float64, shape (21,)",
    ),
    (Listed(), "state() is list ['speed'], expected numbers by name, finite in float32"),
    (BeginsWithNothing(), "state() begins 'speed' with None, expected *"),
    (BeginsTooLarge(), "state() begins 'speed' with 1e+300, expected *"),
    (Header(), "state() has the name '__metadata__', expected *"),
    (Silent(), "report() raises KeyError: 1, expected numbers by name"),
    (Wordy(), "report() has 'pace': 'quick', expected numbers by name"),
    (SaysNothing(), "report() is NoneType None, expected numbers by name"),
    (ReportsNorms(), f"report() {DECLARES}"),
    (Moves(), "absorb() changes block.weights, expected that it stays"),
    (
        ControlByBlock(),
        "absorb() makes * (block.state['control']), expected the same: each coordinate by itself",
    ),
    (ControlByNorms(), f"absorb() {USES} that it does without: no correction can want norms"),
    (BestColumn(), "combine() makes * in a block of 1, expected the same: each coordinate by itself"),
    (Transposed(), "what combine() returns has the shape (3,), expected an array of float64, shape (21,)"),
    (AsList(), "what combine() returns is list *, expected an array of float64, shape (21,)"),
    (Single(), "what combine() returns is of float32, expected an array of float64, shape (21,)"),
    (Squeezed(), "what combine() returns has the shape (), expected an array of float64, shape (1,)"),
    (Outside(), "choose() returns ndarray *, expected an array of indices from 0 to 2, ascending, each once"),
    (Negative(), "choose() returns ndarray array([-1, 0]), expected *"),
    (Descending(), "choose() returns ndarray array([2, 1, 0]), expected *"),
    (ChoosesNone(), "choose() returns ndarray array([], *), expected *"),
    (ByMask(), "choose() returns ndarray *, expected an array of indices *"),
    (Square(), "what weights() returns has the shape (1, 1), expected an array of float64, shape (1,)"),
    (ListOfWeights(), "what weights() returns is list [1.0], expected an array of float64, shape (1,)"),
    (
        NotFinite(),
        "what weights() returns is not finite: inf at index 0, expected values that float32 can hold",
    ),
    (Remembers(), "what weights() returns has the shape (1,), expected an array of float64, shape (2,)"),
    (WeightsByNorm(), f"weights() {DECLARES}"),
    (WeightsByLoss(), "weights() raises TypeError: *NoneType*, expected an array of float64, shape (2,)"),
    (NoNumber(), "min_updates() is '3', expected at least 1"),
    (Helpless(), "min_updates() raises NotImplementedError, expected at least 1"),
    (Forgetful(), "has no remembers, expected remembers, min_updates, weights (see parts)"),
    (Undivided(), "divisor() is 0.0, expected above 0 and finite"),
    (Backwards(), "divisor() is -*, expected above 0 and finite"),
    (Infinite(), "divisor() is inf, expected above 0 and finite"),
    (NoDivisor(), "divisor() is None, expected above 0 and finite"),
    (WeighsByNorm(), f"weight() {DECLARES}"),
    (WeighsByAnyNorm(), "weight() is 1000000001.0 for *, expected above 0 and at most 100.0 (max_weight)"),
    (ScalesByNorm(), f"factor() {DECLARES}"),
    (ScalesByLoss(), "factor() is 4.0 for *, expected 0 to 1"),
    (Perhaps(), "wants_norms is 'yes', expected True or False"),
]


@pytest.mark.parametrize(
    "part",
    [Step(), Rebinds(), ByMeanNorm(), Chooses(), EqualWeights(), Sum(), Sgd(momentum=0.9)],
    ids=lambda one: type(one).__name__,
)
def test_good_parts_pass(part: Any) -> None:
    check(part)


@pytest.mark.parametrize(("part", "said"), BROKEN, ids=[type(part).__name__ for part, _ in BROKEN])
def test_a_part_that_is_wrong_is_told_where_and_what_was_expected(part: Any, said: str) -> None:
    with pytest.raises(AssertionError) as raised:
        check(part)
    pattern = ".*".join(re.escape(piece) for piece in f"{type(part).__name__}: {said}".split("*"))
    assert re.fullmatch(pattern, str(raised.value)), raised.value
