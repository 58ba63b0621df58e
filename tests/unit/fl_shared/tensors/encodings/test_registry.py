"""The encodings: what each must do, and what the registry finds wrong with one."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.protocol import messages as m
from fl_shared.tensors.encodings import registry
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.interface import Encoding, NotFiniteError, TooLargeError
from fl_shared.tensors.manifest import ArraySpec, Vector
from tests.support.encodings import Float16

ALL = [*registry.ENCODINGS.values(), Float16()]
"""And that of the tests, so that they are known to suit more than one."""

every = pytest.mark.parametrize("encoding", ALL, ids=lambda encoding: encoding.name)


def some(values: int) -> Vector:
    """Which `Float16` does not round either."""
    return (np.arange(values, dtype=np.float32) - np.float32(3)) / np.float32(4)


# --- what each must do ------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("values", [0, 1, 1000])
def test_what_is_encoded_has_its_size_and_is_decoded(encoding: Encoding, values: int) -> None:
    vector = some(values)
    data = encoding.encode(vector, seed=1)
    assert len(data) == encoding.size(values)
    assert (data.format, data.ndim) == ("B", 1)
    assert np.array_equal(encoding.decode(data), vector)
    out = np.full(values, np.nan, np.float32)
    assert encoding.decode(bytes(data), out) is out
    assert np.array_equal(out, vector)


@every
def test_data_is_decoded_in_pieces(encoding: Encoding) -> None:
    vector = some(100)
    data = encoding.encode(vector, seed=1)
    for step in (encoding.granularity, 7 * encoding.granularity):
        pieces = [encoding.decode(data[start : start + step]) for start in range(0, len(data), step)]
        assert np.array_equal(np.concatenate(pieces), vector)


@every
def test_the_same_seed_gives_the_same_bytes(encoding: Encoding) -> None:
    assert encoding.encode(some(50), seed=3) == encoding.encode(some(50), seed=3)


@every
def test_the_content_is_checked(encoding: Encoding) -> None:
    vector = some(10)
    assert encoding.check(encoding.encode(vector, seed=0), most=1.5) == 1.5
    with pytest.raises(TooLargeError, match=r"a value of magnitude 1\.5"):
        encoding.check(encoding.encode(vector, seed=0), most=1.25)
    assert encoding.check(b"", most=0.0) == 0.0
    for value in (math.nan, math.inf, -math.inf):
        vector[6] = value
        with pytest.raises(NotFiniteError, match="value 6 is") as caught:
            encoding.check(encoding.encode(vector, seed=0), most=math.inf)
        assert caught.value.index == 6
        assert str(caught.value.value) == str(value)


def test_f32_copies_nothing() -> None:
    vector = some(1000)
    data = FLOAT32.encode(vector, seed=0)
    assert np.shares_memory(np.frombuffer(data, np.uint8), vector)
    assert np.shares_memory(FLOAT32.decode(data), vector)
    writable = FLOAT32.decode(bytearray(8))
    writable[0] = 1.0  # as torch needs it


@given(st.lists(st.floats(width=32), max_size=20))
def test_3_1_f32_is_little_endian_float32(values: list[float]) -> None:
    data = struct.pack(f"<{len(values)}f", *values)
    assert FLOAT32.encode(np.array(values, np.float32), seed=0) == data
    assert FLOAT32.decode(data).tobytes() == np.array(values, np.float32).tobytes()


def test_f32_does_not_decode_a_part_of_a_value() -> None:
    with pytest.raises(ValueError, match="6 bytes, expected a multiple of 4"):
        FLOAT32.decode(bytes(6))


# --- the registry -----------------------------------------------------------------------------------------


def test_the_registry() -> None:
    assert registry.names() == ("f32",)
    assert registry.get("f32") is FLOAT32
    with pytest.raises(ValueError, match="'q8', expected 'f32'"):
        registry.get("q8")


class Wrong(Float16):
    """As `Float16`, but for ``changes``."""

    def __init__(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Wrong(name="F 16"), "'F 16': expected a name that matches"),
        (Wrong(name="f32"), "'f32': there are two of that name"),
        (Wrong(granularity=0), "'f16': granularity: 0, expected at least 1"),
        (Wrong(size=lambda values: values), "'f16': size: 3, but it encodes to 6 bytes"),
        (Wrong(decode=lambda _, out=None: some(2) if out is None else out), "'f16': does not decode what"),
        (Wrong(decode=lambda *_: some(3)), "'f16': does not decode what"),
        (Wrong(lossy=False, encode=lambda *_, **__: memoryview(bytes(6))), "'f16': decodes to other values"),
    ],
)
def test_an_encoding_that_contradicts_itself_is_found_out_at_import(wrong: Encoding, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        registry.checked(FLOAT32, wrong)


def test_one_that_is_right_is_taken() -> None:
    encoding = Float16()
    assert registry.checked(encoding, FLOAT32) == {"f16": encoding, "f32": FLOAT32}


@pytest.mark.parametrize("model", [m.Section, m.OfferedSection, m.SectionManifest])
def test_a_section_in_an_unknown_encoding_is_not_read(model: type[m.Fragment]) -> None:
    fields: dict[str, Any] = {"name": "weights", "manifest": "ab" * 32, "data": b"", "size": 0}
    fields["arrays"] = (ArraySpec(name="a", shape=(0,)),)
    model.model_validate(fields | {"encoding": "f32"})
    with pytest.raises(ValueError, match="expected 'f32'"):
        model.model_validate(fields | {"encoding": "f16"})
