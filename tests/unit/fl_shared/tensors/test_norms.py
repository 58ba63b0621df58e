"""Norms do not depend on how a library adds; they are read in blocks of the spans."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.norms import norm
from fl_shared.tensors.spans import BLOCK, blocks, spans

RANDOM = np.random.default_rng(3)


def test_spans_of_parameters_and_of_buffers() -> None:
    roles = ("parameter", "parameter", "buffer", "parameter", "buffer")
    arrays = tuple(ArraySpec(name=f"{i}", shape=(i,), role=role) for i, role in enumerate(roles))  # type: ignore[arg-type]
    manifest = Manifest(arrays=arrays)
    assert spans(manifest, buffers=False) == [(0, 1), (3, 6)]
    assert spans(manifest, buffers=True) == [(1, 3), (6, 10)]


def test_blocks_cover_the_spans() -> None:
    assert list(blocks([(0, 3), (5, BLOCK + 7)])) == [(0, 3), (5, BLOCK + 5), (BLOCK + 5, BLOCK + 7)]


@pytest.mark.parametrize("values", [1, 63, 64, 1000, 3 * BLOCK + 5])
def test_the_norm_is_that_of_float64(values: int) -> None:
    vector = RANDOM.normal(size=values + 2).astype(np.float32)
    expected = np.linalg.norm(vector[1:-1].astype(np.float64))
    assert norm(vector, [(1, values + 1)]) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1.0, 1e34])
def test_the_norm_is_within_2_to_the_minus_44(scale: float) -> None:
    vector = (RANDOM.standard_exponential(4 * BLOCK) * scale).astype(np.float32)
    exact = math.isqrt(sum(int(one * 2**200) ** 2 for one in map(float, vector))) / 2**200
    assert abs(norm(vector, [(0, len(vector))]) - exact) <= 2.0**-44 * exact
