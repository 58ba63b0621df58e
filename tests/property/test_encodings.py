"""Hostile bytes in every encoding: they are refused, or are finite values within the bound that was found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.tensors.encodings.interface import ContentError
from fl_shared.tensors.encodings.registry import OF_INTEGERS
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.manifest import ArraySpec, Manifest

NAMES = ("f32", "bf16", "q8", "shuffle-deflate", "topk:0.01", "topk:0.5", *OF_INTEGERS)


def manifest(parameters: int, buffers: int) -> Manifest:
    shapes = (("a", parameters, "parameter"), ("b", buffers, "buffer"), ("c", parameters, "parameter"))
    return Manifest(
        arrays=tuple(ArraySpec.model_validate({"name": n, "shape": (s,), "role": r}) for n, s, r in shapes)
    )


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), parameters=st.integers(0, 300), buffers=st.integers(0, 3))
def test_what_passes_the_check_is_finite_and_bounded(
    name: str, data: st.DataObject, parameters: int, buffers: int
) -> None:
    form = SectionFormat.of(name, manifest(parameters, buffers))
    content = bytearray(form.encode(np.linspace(-1, 1, form.values, dtype=np.float32), seed=0))
    for _ in range(data.draw(st.integers(0, 4)) if content else 0):
        place = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        content[place : place + len(piece)] = piece[: len(content) - place]
    try:
        bound = form.check(content, math.inf)
    except ContentError:
        return
    values = form.values_in(bytes(content))
    whole = values[:]
    assert whole.shape == (form.values,)
    assert np.abs(whole).max(initial=0) <= bound < math.inf
    for start in range(0, form.values, 77):
        assert np.array_equal(values[start : start + 77], whole[start : start + 77])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "shuffle-deflate"])
def test_a_section_has_one_size_and_a_block_costs_no_more_than_itself(name: str) -> None:
    """A message of a few bytes cannot stand for a large vector: the manifest of the run says how many it must have."""
    form = SectionFormat.of(name, manifest(100_000, 0))
    (size,) = form.sizes
    assert size >= 200_000 * 8 * 0.01
    values = form.values_in(bytes(size))
    assert not values[5:77].any()
