"""A part of somebody that breaks a rule in a run fails it with one line, which names the part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_aggregator.aggregation.strategies.coordinates import Median
from fl_aggregator.aggregation.strategies.distances import Bulyan, Krum
from fl_aggregator.aggregation.strategies.optimizers import Sgd
from fl_aggregator.aggregation.strategies.parts import Block, ClosedRound, Columns, Contribution, Doubles
from fl_aggregator.aggregation.strategies.sums import Mean
from fl_aggregator.configuration.settings import Settings
from fl_shared.errors import RunFailed
from tests.support.virtual_federation import VALUES, Federation


@dataclass(frozen=True, slots=True)
class Squares(Mean):
    def weight(self, update: Contribution) -> float:
        return update.examples**2 * 1e9


@dataclass(frozen=True, slots=True)
class Negative(Mean):
    def divisor(self, closed: ClosedRound) -> float:  # noqa: ARG002
        return -1.0


@dataclass(frozen=True, slots=True)
class Raises(Sgd):
    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        raise KeyError("velocity")


@dataclass(frozen=True, slots=True)
class Infinite(Sgd):
    def step(self, block: Block, closed: ClosedRound) -> None:
        block.weights[:] += block.change * (np.inf if closed.version == 2 else 1.0)


@dataclass(frozen=True, slots=True)
class Large(Sgd):
    """Finite in double precision, but not as the weights are rounded."""

    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.weights[:] = 1e300


@dataclass(frozen=True, slots=True)
class Talks(Sgd):
    def report(self, closed: ClosedRound) -> Mapping[str, float]:  # noqa: ARG002
        return {"rate": float("fast")}


@dataclass(frozen=True, slots=True)
class Longer:
    """A transform that makes updates longer."""

    wants_norms: ClassVar[bool] = False

    def factor(self, update: Contribution) -> float:  # noqa: ARG002
        return 2.0


@dataclass(frozen=True, slots=True)
class Widest(Median):
    def combine(self, columns: Columns) -> Doubles:
        first: Doubles = columns[0].astype(np.float64)
        return first


@dataclass(frozen=True, slots=True)
class Few(Krum):
    bad: int = 0

    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:  # noqa: ARG002
        return np.ones(1)


@dataclass(frozen=True, slots=True)
class Beyond(Bulyan):
    bad: int = 0

    def choose(self, gram: Doubles) -> NDArray[np.intp]:
        return np.array([len(gram)])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"combine": "Squares"}, r"^Squares\.weight\(\) of the update of edge \d is "),
        ({"combine": "Negative"}, r"^Negative\.divisor\(\) of version 1 is -1\.0, expected above 0"),
        ({"combine": "Widest"}, r"^Widest\.combine\(\) returns shape \(3,\), expected finite numbers of shape"),
        ({"combine": "Few"}, r"^Few\.weights\(\) returns shape \(1,\), expected finite numbers of shape \(3,\)"),
        ({"combine": "Beyond"}, r"^Beyond\.choose\(\) of 3 updates is \[3\], expected one or more of"),
        ({"transform": "Longer"}, r"^the factor of the update of edge \d is 2\.0 after Longer, expected 0 to 1"),
        ({"server_optimizer": "Raises"}, r"^Raises\.step\(\) has failed at \w+\.py:\d+: KeyError: 'velocity'$"),
        ({"server_optimizer": "Infinite"}, r"^version 2: a weight is -?(inf|nan) after Infinite\.step\(\)"),
        ({"server_optimizer": "Large"}, r"^version 1: a weight is inf after Large\.step\(\), expected finite"),
        ({"server_optimizer": "Talks"}, r"^Talks\.report\(\) has failed at test_failing_parts\.py:\d+: ValueError"),
    ],
)  # fmt: skip
def test_a_part_that_breaks_a_rule_is_named(options: dict[str, str], says: str, tmp_path: Path) -> None:
    named = {option: f"{__name__}:{part}" for option, part in options.items()}
    settings = Settings.model_validate(
        {"task": f"synthetic-{VALUES}", "clients": 3, "quorum": 3, "rounds": 2, "holdout": 0.0}
        | {option: (text,) if option == "transform" else text for option, text in named.items()}
    )
    federation = Federation(tmp_path / "run", settings)
    with pytest.raises(RunFailed, match=says):
        federation.run()
    federation.close()
