"""Integers modulo 2^bits, as masked updates send them, and bytes."""

from __future__ import annotations

from typing import Annotated, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fl_shared.tensors.encodings import registry
from fl_shared.tensors.encodings.interface import TooLargeError
from fl_shared.tensors.encodings.masked import MASKED, RAW, WIDTHS, MaskedIntegers
from fl_shared.tensors.encodings.section import SectionFormat, decoded
from fl_shared.tensors.manifest import ArraySpec, Manifest

every = pytest.mark.parametrize("encoding", MASKED.values(), ids=lambda encoding: encoding.name)
words = st.lists(st.integers(-(2**63), 2**64 - 1), max_size=40)


@every
@given(values=words)
def test_10_4_words_become_their_low_bytes_and_again_words(
    encoding: MaskedIntegers, values: list[int]
) -> None:
    given_words = np.array([value % 2**64 for value in values], np.uint64).astype(encoding.dtype)
    data = encoding.pack(given_words)
    modulus = 2**encoding.bits
    assert bytes(data) == b"".join((v % modulus).to_bytes(encoding.bits // 8, "little") for v in values)
    assert len(data) in encoding.sizes(len(values))
    assert encoding.unpack(data).tolist() == [value % modulus for value in values]


@every
@given(data=st.data())
def test_words_of_either_sign(encoding: MaskedIntegers, data: st.DataObject) -> None:
    half = 2 ** (encoding.bits - 1)
    integers = data.draw(st.lists(st.integers(-half, half - 1), max_size=40))
    given_words = np.array(integers, np.int64).astype(encoding.dtype)
    assert encoding.signed(given_words).tolist() == integers
    assert encoding.signed(encoding.unpack(encoding.pack(given_words))).tolist() == integers


@pytest.mark.parametrize("bits", [bits for bits in WIDTHS if bits > 32])
def test_an_odd_number_of_bytes_is_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"{bits // 8 - 1} bytes, expected a multiple of {bits // 8}"):
        MASKED[bits].unpack(bytes(bits // 8 - 1))


@pytest.mark.parametrize("name", ["masked32", "masked40", "masked48", "masked64", "raw"])
def test_a_section_of_integers_has_its_buffers_among_them(name: str) -> None:
    manifest = Manifest(
        arrays=(ArraySpec(name="a", shape=(2, 3)), ArraySpec(name="b", shape=(2,), role="buffer"))
    )
    form, vector = SectionFormat.of(name, manifest), np.arange(8, dtype=np.float32)
    data = form.encode(vector, seed=0)
    assert [*form.sizes] == [len(data)] == [8 * (1 if name == "raw" else int(name[6:]) // 8)]
    assert decoded(form.values_in(data)).tolist() == vector.tolist()
    assert form.values_in(data)[3:5].tolist() == [3.0, 4.0]


def test_any_words_may_be_masked_ones_but_a_cap_holds() -> None:
    assert MASKED[48].check(b"", 0, most=2.0**47) == 2.0**47
    assert RAW.check(b"\xff", 1, most=255.0) == 255.0
    for encoding in (MASKED[48], RAW):
        with pytest.raises(TooLargeError):
            encoding.check(b"", 0, most=100.0)


@pytest.mark.parametrize("name", [*registry.OF_INTEGERS])
def test_no_edge_offers_it_and_no_run_asks_for_it(name: str) -> None:
    assert registry.get(name).name == name
    assert name not in registry.names()
    of_run: TypeAdapter[str] = TypeAdapter(Annotated[str, *get_args(registry.KnownEncoding)[1:]])
    with pytest.raises(ValidationError, match=f"'{name}', expected 'bf16' or 'f32'"):
        of_run.validate_python(name)
