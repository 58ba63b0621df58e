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

ALL = [
    *(registry.parse(name) for name in ("bf16", "f32", "q8", "shuffle-deflate", "topk:0.01", "topk:0.5")),
    Float16(),
]
"""And that of the tests, so that they are known to suit more than one."""

every = pytest.mark.parametrize("encoding", ALL, ids=lambda encoding: encoding.name)


def some(values: int) -> Vector:
    """Which `Float16` does not round either."""
    return (np.arange(values, dtype=np.float32) - np.float32(3)) / np.float32(4)


def decoded(encoding: Encoding, data: memoryview, values: int, step: int) -> Vector:
    """What ``data`` says, decoded ``step`` values at a time."""
    out = np.full(values, np.nan, np.float32)
    for start in range(0, values, step):
        encoding.decode_block(data, values, start, out[start : start + step])
    return out


# --- what each must do ------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("values", [0, 1, 255, 256, 257, 1000, 70_000])
def test_what_is_encoded_has_its_size_and_is_decoded(encoding: Encoding, values: int) -> None:
    vector = some(values)
    data = encoding.encode(vector, seed=1)
    assert len(data) in encoding.sizes(values)
    assert (data.format, data.ndim) == ("B", 1)
    whole = decoded(encoding, data, values, max(values, 1))
    assert encoding.lossy or np.array_equal(whole, vector)
    assert np.abs(whole).max(initial=0) <= encoding.check(data, values, most=math.inf)
    for step in (97, 256, 300):
        assert np.array_equal(decoded(encoding, data, values, step), whole)


@every
def test_the_same_seed_gives_the_same_bytes(encoding: Encoding) -> None:
    assert encoding.encode(some(50), seed=3) == encoding.encode(some(50), seed=3)


@every
def test_the_content_is_checked(encoding: Encoding) -> None:
    vector = some(10)
    vector[-1] = 1.75  # above the others, so that any encoding keeps it
    assert encoding.check(encoding.encode(vector, seed=0), 10, most=1.75) == 1.75
    with pytest.raises(TooLargeError, match=r"a value of magnitude 1\.75"):
        encoding.check(encoding.encode(vector, seed=0), 10, most=1.5)
    assert encoding.check(memoryview(b""), 0, most=0.0) == 0.0
    for value in (math.nan, math.inf, -math.inf):
        vector[6] = value
        with pytest.raises(NotFiniteError) as caught:
            encoding.check(encoding.encode(vector, seed=0), 10, most=math.inf)
        if encoding.name != "q8":  # which knows the block alone
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
    assert registry.names() == ("bf16", "f32", "q8", "shuffle-deflate", "topk")
    assert registry.get("f32") is FLOAT32
    assert registry.get("topk:0.1").name == "topk:0.1"
    assert registry.kind_of("topk:0.1") == "topk"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("q4", "'q4', expected 'bf16' or 'f32' or 'q8' or 'shuffle-deflate' or 'topk:0.01'"),
        ("q8:256", "'q8:256', expected 'q8', which has no parameter"),
        ("topk", "'topk', expected the ratio of the values to send, from 0.000001 to 0.5: for example 'topk:0.01'"),
        ("topk:", "'topk:', expected the ratio"),
        ("topk:0.6", "'topk:0.6', expected the ratio"),
        ("topk:nan", "'topk:nan', expected the ratio"),
        ("topk:0.010", "'topk:0.010', expected 'topk:0.01': a name has one form"),
        ("topk:1e-2", "'topk:1e-2', expected 'topk:0.01': a name has one form"),
    ],
)  # fmt: skip
def test_3_8_a_name_has_one_form(name: str, said: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        registry.get(name)
    assert str(caught.value).startswith(said)


def test_a_user_may_write_a_parameter_in_any_form() -> None:
    assert registry.parse("topk:0.010").name == "topk:0.01"
    assert registry.parse("topk:1e-2").name == "topk:0.01"


class Wrong(Float16):
    """As `Float16`, but for ``changes``."""

    def __init__(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self, name, value)


def _ones(_data: object, _values: int, start: int, out: Vector) -> None:
    out[:] = np.arange(len(out)) + 7 * start


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Wrong(name="F 16"), "'F 16': expected a name that matches"),
        (Wrong(name="f32"), "'f32': there are two of that name"),
        (Wrong(sizes=lambda values: range(values, values + 1)), "'f16': sizes: 3, but it encodes to 6 bytes"),
        (Wrong(sizes=lambda values: range(2 * values)), "'f16': sizes: 0 to 5, but it encodes to 6 bytes"),
        (Wrong(decode_block=_ones), "'f16': decodes other values in blocks"),
        (Wrong(lossy=False, encode=lambda *_, **__: memoryview(bytes(6))), "'f16': decodes to other values"),
        (Wrong(check=lambda *_, **__: 1.0), "'f16': check: finds a smaller magnitude"),
    ],
)
def test_an_encoding_that_contradicts_itself_is_found_out_at_import(wrong: Encoding, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        registry.checked(FLOAT32, wrong)


def test_one_that_is_right_is_taken() -> None:
    encoding = Float16()
    assert registry.checked(encoding, FLOAT32) == {"f16": encoding, "f32": FLOAT32}


OF_MODELS = ("f32", "bf16")
OF_UPDATES = (*OF_MODELS, "q8", "shuffle-deflate", "topk:0.01", *registry.OF_INTEGERS)


@pytest.mark.parametrize(
    ("model", "expected"),
    [(m.Section, OF_UPDATES), (m.OfferedSection, OF_UPDATES), (m.SectionManifest, OF_MODELS)],
)
def test_a_section_in_an_unknown_encoding_is_not_read(
    model: type[m.Fragment], expected: tuple[str, ...]
) -> None:
    fields: dict[str, Any] = {"name": "weights", "manifest": "ab" * 32, "data": b"", "size": 0}
    fields["arrays"] = (ArraySpec(name="a", shape=(0,)),)
    for known in expected:
        model.model_validate(fields | {"encoding": known})
    for unknown in {"f16", "topk", "topk:0.010", *OF_UPDATES} - {*expected}:
        with pytest.raises(ValueError, match=r"expected |should be 'f32' or 'bf16'"):
            model.model_validate(fields | {"encoding": unknown})
