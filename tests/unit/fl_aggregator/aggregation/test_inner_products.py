"""Inner products do not depend on an order, or on how a library adds."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fl_aggregator.aggregation.inner_products import gram
from fl_shared.tensors.spans import BLOCK, block_of

RANDOM = np.random.default_rng(3)


def test_the_inner_products_are_those_of_float64() -> None:
    rows = RANDOM.normal(size=(5, 2 * BLOCK + 9)) * np.array([[1e-6], [1], [50], [0], [1e-30]])
    rows = rows.astype(np.float32)
    where = [(0, 100), (200, 2 * BLOCK + 9)]
    taken = np.concatenate([rows[:, a:b] for a, b in where], axis=1).astype(np.float64)
    lengths = np.linalg.norm(taken, axis=1)
    assert np.abs(gram(list(rows), where) - taken @ taken.T).max() <= 1e-5 * np.outer(lengths, lengths).max()
    alone = gram([rows[0]], where)
    assert alone[0, 0] == pytest.approx(lengths[0] ** 2, rel=1e-5)


def test_any_order_of_rows_and_of_coordinates_gives_the_same_bits() -> None:
    rows = RANDOM.normal(size=(7, 3000)).astype(np.float32)
    order, coordinates = RANDOM.permutation(7), RANDOM.permutation(3000)
    there = gram(list(rows), [(0, 3000)])
    other = gram(list(np.ascontiguousarray(rows[order][:, coordinates])), [(0, 3000)])
    assert other.tobytes() == there[np.ix_(order, order)].tobytes()


def test_the_largest_integers_do_not_overflow_float64() -> None:
    """All values are the largest, so that each product of a block is 2^52 at most, which is exact."""
    row = np.full(4 * BLOCK, np.nextafter(np.float32(1), np.float32(0)))
    assert gram([row, -row], [(0, len(row))]).tolist() == [[len(row), -len(row)], [-len(row), len(row)]]


@pytest.mark.parametrize("updates", [3, 1000])
def test_memory_does_not_grow_with_the_updates(updates: int) -> None:
    """What is read at a time is bounded; the matrix itself is not."""
    assert updates * block_of(updates) * 8 <= 27e6
    rows = [np.broadcast_to(np.float32(index + 1), 20_000) for index in range(updates)]
    tracemalloc.start()
    try:
        products = gram(rows, [(0, 20_000)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 30e6 + 6 * products.nbytes
    assert products[0, -1] == pytest.approx(20_000 * updates)
