"""Numbers of variable length: MQTT's own examples, and both directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.system import varint


@pytest.mark.parametrize(
    ("number", "data"),
    [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (16_383, b"\xff\x7f"), (2_097_152, b"\x80\x80\x80\x01")],
)
def test_the_table_of_mqtt(number: int, data: bytes) -> None:
    """MQTT 5, table 1-1."""
    assert varint.encode(number) == data
    assert varint.decode(data, 0) == (number, len(data))


@given(st.integers(0, 2**63 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_decode_undoes_encode(number: int, before: bytes, after: bytes) -> None:
    data = varint.encode(number)
    assert len(data) == varint.length(number)
    assert varint.decode(before + data + after, len(before), most=9) == (number, len(before) + len(data))


def test_more_bytes_than_allowed_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 4 bytes"):
        varint.decode(b"\x80\x80\x80\x80\x01", 0)


def test_a_number_that_is_cut_off_is_refused() -> None:
    with pytest.raises(IndexError):
        varint.decode(b"\x80", 0)
