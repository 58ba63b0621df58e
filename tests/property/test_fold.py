"""Design G1 for the fold: the same bits in any order and any grouping, compared with a dumb version.

The dumb version works in Python's integers and fractions, a value at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_aggregator.aggregation.combining import Combiner
from fl_aggregator.aggregation.exact_sum import ExactSum
from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.configuration.settings import Settings
from fl_shared.tensors.fixed_point import BLOCK
from fl_shared.tensors.manifest import Vector, manifest_of
from tests.support.builders import update_metadata

quick = settings(deadline=None, max_examples=50)


@dataclass(frozen=True)
class Updates:
    settings: Settings
    slots: int
    deltas: tuple[Vector, ...]
    examples: tuple[int, ...]

    def folded(self, order: list[int] | range) -> ExactSum:
        total = ExactSum(len(self.deltas[0]), self.settings.scale_bits, self.slots, self.settings.max_delta)
        for index in order:
            total.add(self.deltas[index], self.examples[index])
        return total

    def mean(self, order: list[int] | range) -> NDArray[np.float64]:
        return self.folded(order).over(float(sum(self.examples)))

    def next_model(self, base: Vector, order: list[int] | range) -> Vector:
        combiner = Combiner(registry.load(self.settings), manifest_of({"a": base}), self.settings)
        for index in order:
            update = update_metadata(client=f"c{index}", examples=self.examples[index])
            combiner.add(update, self.deltas[index], self.settings.max_delta)
        return combiner.next_model(1, base, {}, self._unread)[0]

    @staticmethod
    def _unread(client: str) -> Vector:
        raise AssertionError(f"the update of {client} is read again")

    @property
    def all(self) -> range:
        return range(len(self.deltas))


@st.composite
def caps(draw: st.DrawFn) -> Settings:
    """Settings with any caps that they allow."""
    slots = draw(st.integers(1, 1000))
    extra = draw(st.integers(0, slots - 1))
    max_delta = draw(st.floats(0.01, 1e5))
    room = max(1, min(2**40, int(2**41 / (max_delta * slots))))
    least = min(room, max(1, math.ceil(1 / (max_delta * slots))))
    return Settings(
        clients=slots,
        per_round=slots - extra,
        over_select=extra,
        max_delta=max_delta,
        max_examples=draw(st.integers(least, room)),
    )


def float32_within(bound: float) -> st.SearchStrategy[float]:
    """All float32 values of at most ``bound``, its neighbours and subnormal ones among them."""
    largest = np.float32(bound)
    if float(largest) > bound:
        largest = np.nextafter(largest, np.float32(0))
    top = float(largest)
    return st.floats(-top, top, width=32) | st.sampled_from((top, -top, 0.0, -0.0))


@st.composite
def updates(draw: st.DrawFn) -> Updates:
    run = draw(caps())
    slots = run.per_round + run.over_select
    values = draw(st.integers(1, 5))
    count = draw(st.integers(1, min(slots, 6)))
    one = st.lists(float32_within(run.max_delta), min_size=values, max_size=values)
    deltas = tuple(np.array(draw(one), dtype="<f4") for _ in range(count))
    examples = st.integers(1, run.max_examples) | st.sampled_from((1, run.max_examples))
    return Updates(run, slots, deltas, tuple(draw(examples) for _ in range(count)))


def dumb_sum(some: Updates) -> list[int]:
    """5.10, word by word: Σ round(examples × delta × 2^scale_bits), product in float64, rounded half to even."""
    totals = [0] * len(some.deltas[0])
    for delta, examples in zip(some.deltas, some.examples, strict=True):
        for index, value in enumerate(delta):
            product = float(examples) * float(value)
            totals[index] += round(Fraction(product) * Fraction(2) ** some.settings.scale_bits)
    return totals


def dumb_mean(some: Updates) -> list[float]:
    """5.10: then divided by 2^scale_bits × Σ examples in float64."""
    divisor = math.ldexp(float(sum(some.examples)), some.settings.scale_bits)
    return [float(total) / divisor for total in dumb_sum(some)]


@quick
@given(updates())
def test_the_sum_is_that_of_the_dumb_version(some: Updates) -> None:
    total = some.folded(some.all)
    assert [int(value) for value in total.integers()] == dumb_sum(some)
    assert some.mean(some.all).tolist() == dumb_mean(some)


@quick
@given(updates(), st.data())
def test_any_order_gives_the_same_bits(some: Updates, data: st.DataObject) -> None:
    order = data.draw(st.permutations(some.all))
    base = np.linspace(-1, 1, len(some.deltas[0]), dtype="<f4")
    assert some.mean(some.all).tobytes() == some.mean(order).tobytes()
    models = [some.next_model(base, one).tobytes() for one in (some.all, order)]
    assert models[0] == models[1]


@quick
@given(updates(), st.data())
def test_any_grouping_gives_the_same_bits(some: Updates, data: st.DataObject) -> None:
    """A tree of partial sums, as regional aggregators would send, adds up to the flat one."""
    order = data.draw(st.permutations(some.all))
    cut = data.draw(st.integers(0, len(order)))
    left, right = some.folded(order[:cut]), some.folded(order[cut:])
    assert np.array_equal(left.integers() + right.integers(), some.folded(some.all).integers())


@quick
@given(caps(), st.booleans())
def test_the_caps_cannot_overflow(run: Settings, negative: bool) -> None:
    """Every slot with the largest delta and as many examples as may be, in Python's unbounded integers."""
    slots = run.per_round + run.over_select
    largest = np.float32(run.max_delta)
    if float(largest) > run.max_delta:
        largest = np.nextafter(largest, np.float32(0))
    delta = np.array([-largest if negative else largest], dtype="<f4")
    total = ExactSum(1, run.scale_bits, slots)
    for _ in range(slots):
        total.add(delta, run.max_examples)
    one = round(Fraction(float(run.max_examples) * float(delta[0])) * Fraction(2) ** run.scale_bits)
    assert int(total.integers()[0]) == slots * one
    assert abs(slots * one) <= 2**62 + slots
    # A quantum is half of one example's worth an update, and float64 has 53 bits.
    bound = abs(float(delta[0])) * 2**-51 + 2.0**-run.scale_bits / run.max_examples
    assert abs(total.over(float(slots * run.max_examples))[0] - float(delta[0])) <= bound


@quick
@given(updates())
def test_the_mean_is_the_exact_one_within_half_a_quantum_an_update_and_float64(some: Updates) -> None:
    examples = sum(some.examples)
    for index, mean in enumerate(some.mean(some.all)):
        weighted = [
            Fraction(float(delta[index])) * n for delta, n in zip(some.deltas, some.examples, strict=True)
        ]
        exact = sum(weighted, Fraction(0)) / examples
        quantum = Fraction(len(weighted), 2 ** (some.settings.scale_bits + 1) * examples)
        rounding = sum((abs(part) for part in weighted), Fraction(0)) / examples / 2**51
        assert abs(Fraction(float(mean)) - exact) <= quantum + rounding


@quick
@given(updates(), st.data())
def test_the_next_model_is_the_float64_average_within_one_float32_step(
    some: Updates, data: st.DataObject
) -> None:
    values = len(some.deltas[0])
    base = np.array(
        data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=values, max_size=values)), dtype="<f4"
    )
    weights = np.array(some.examples, dtype=np.float64)
    expected = base.astype(np.float64) + np.average(
        np.stack(some.deltas).astype(np.float64), axis=0, weights=weights
    )
    actual = some.next_model(base, some.all)
    quantum = 2.0**-some.settings.scale_bits * len(some.examples) / 2 / weights.sum()
    scale = np.abs(np.stack(some.deltas)).max(axis=0).astype(np.float64)
    step = np.spacing(np.maximum(np.abs(actual), np.abs(expected.astype(np.float32)))).astype(np.float64)
    assert (np.abs(actual - expected) <= step + quantum + scale * 2**-50).all()


@st.composite
def updates_of_buffers(draw: st.DrawFn) -> Updates:
    """Updates with values above max_delta, which only buffers can have, among smaller ones."""
    some = draw(updates())
    value = float32_within(some.settings.max_delta) | float32_within(some.settings.max_buffer)
    one = st.lists(value, min_size=len(some.deltas[0]), max_size=len(some.deltas[0]))
    deltas = tuple(np.array(draw(one), dtype="<f4") for _ in some.deltas)
    return Updates(some.settings, some.slots, deltas, some.examples)


@quick
@given(updates_of_buffers(), st.data())
def test_large_buffers_are_averaged_as_exactly_in_any_order(some: Updates, data: st.DataObject) -> None:
    examples = sum(some.examples)
    order = data.draw(st.permutations(some.all))
    assert some.mean(order).tobytes() == some.mean(some.all).tobytes()
    quantum = Fraction(1, int(2**some.settings.scale_bits))
    for index, mean in enumerate(some.mean(some.all)):
        weighted = [Fraction(float(d[index])) * n for d, n in zip(some.deltas, some.examples, strict=True)]
        lost = quantum * len(weighted) + sum((abs(one) for one in weighted), Fraction(0)) * Fraction(1, 2**50)
        assert abs(Fraction(float(mean)) - sum(weighted, Fraction()) / examples) <= lost / examples


def test_a_large_buffer_leaves_its_neighbours_as_they_are() -> None:
    """Also in the second block, and in a piece of the mean that does not begin with a block."""
    run = Settings(clients=2, per_round=2)
    small = np.linspace(-100, 100, BLOCK + 9, dtype="<f4")
    large = small.copy()
    large[[3, BLOCK + 4]] = 206152.25, -1e12
    means = []
    for delta in (small, large):
        total = ExactSum(len(delta), run.scale_bits, 2, run.max_delta)
        total.add(delta, 7)
        means.append(total.over(7))
        assert np.array_equal(total.over(7, BLOCK + 2, BLOCK + 6), means[-1][BLOCK + 2 : BLOCK + 6])
    changed = np.flatnonzero(means[0] != means[1])
    assert changed.tolist() == [3, BLOCK + 4]
    assert means[1][changed].tolist() == [206152.25, float(np.float32(-1e12))]
