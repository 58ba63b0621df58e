"""What one edge can do to a version of q-FedAvg by the loss that it says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fl_aggregator.aggregation.strategies.parts import ClosedRound, Contribution
from fl_aggregator.aggregation.strategies.sums import Fair, _power

ORDINARY = tuple([Contribution(str(k), 100, 10, loss=1.0, norm=0.1) for k in range(9)])


def steps(part: Fair, loss: float, norm: float = 0.1) -> list[float]:
    """What the change of each of ten edges counts in the version, if the last says this loss."""
    edges = (*ORDINARY, replace(ORDINARY[0], client="9", loss=loss, norm=norm))
    divisor = part.divisor(ClosedRound(1, edges))
    return [part.weight(edge) / divisor for edge in edges]


@pytest.mark.parametrize("q", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("loss", [0.0, 1e-30, 1e-10])
def test_an_edge_without_a_loss_does_not_hold_the_model_still(q: float, loss: float) -> None:
    part = Fair(lr=0.1, q=q)
    assert steps(part, loss) == steps(part, part.min_loss)
    assert steps(part, loss)[0] > 0.2 * steps(part, 1.0)[0], "the others go on"


def test_the_paper_itself_would_hold_it_still() -> None:
    """With q below 1, F^(q−1) has no bound."""
    paper = Fair(lr=0.1, q=0.1, min_loss=1e-10)
    assert steps(paper, 0.0)[0] < 1e-5 * steps(paper, 1.0)[0]


@pytest.mark.parametrize("q", [0.1, 1.0])
def test_a_huge_loss_counts_as_the_largest_that_may_be(q: float) -> None:
    part = Fair(lr=0.1, q=q)
    assert steps(part, 1e300) == steps(part, 100.0)
    *_, ordinary, loud = steps(part, 1e300)
    assert loud / ordinary == pytest.approx(100.0**q)


def test_a_power_is_the_same_on_every_machine() -> None:
    """The power functions of two machines may differ in the last places, which are not used."""
    for exponent in (0.1, 0.5, -0.9, 2.0):
        for loss in (0.01, 0.3, 1.0, 2.5, 99.0):
            exact = loss**exponent
            found = _power(loss, exponent)
            assert found == pytest.approx(exact, rel=2**-30)
            assert math.ldexp(math.frexp(found)[0], 30).is_integer()
