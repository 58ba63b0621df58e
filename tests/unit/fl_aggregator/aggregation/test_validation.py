"""Whether an update's bytes are what it says: each reason of `docs/protocol.md`, 5.6, that values can give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_aggregator.aggregation.validation import CheckedSection, CheckedUpdate, ExpectedUpdate, InvalidUpdate
from fl_aggregator.storage.update_content import UpdateContent
from fl_shared.protocol.messages import Update
from fl_shared.tensors.encodings.registry import ENCODINGS
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from fl_shared.tensors.sections import DELTA
from tests.support.builders import digest_of, section, update
from tests.support.encodings import Float16

MANIFEST = Manifest(
    arrays=(
        ArraySpec(name="conv.weight", shape=(2, 3)),
        ArraySpec(name="empty", shape=(0, 4)),
        ArraySpec(name="fc.bias", shape=(2,)),
        ArraySpec(name="norm.mean", shape=(1,), role="buffer"),
    )
)
EXPECTED = ExpectedUpdate((DELTA,), "f32", MANIFEST, 100.0, 1e12)
FIRST = ExpectedUpdate((DELTA,), "f32", None, math.inf, math.inf)
TWO = ExpectedUpdate(("control", DELTA), "f32", MANIFEST, 100.0, 1e12)
quick = settings(deadline=None, max_examples=40)
finite = st.floats(-100, 100, width=32)
vectors = st.lists(finite, min_size=9, max_size=9).map(lambda values: np.array(values, dtype="<f4"))


def values(*changed: tuple[int, float]) -> Vector:
    vector = np.linspace(-1, 1, 9, dtype="<f4")
    for index, value in changed:
        vector[index] = value
    return vector


def refused(bad: Update, expected: ExpectedUpdate = EXPECTED) -> tuple[str, str]:
    with pytest.raises(InvalidUpdate) as caught:
        expected.check(UpdateContent.of(bad))
    return caught.value.reason, str(caught.value)


def checked(good: Update, expected: ExpectedUpdate = EXPECTED) -> CheckedUpdate:
    return expected.check(UpdateContent.of(good))


def plain(section: CheckedSection) -> Vector:
    """The values of a section that came as float32."""
    assert isinstance(section.values, np.ndarray)
    return section.values


def place(index: int) -> str:
    """How a message names the value at ``index``."""
    name, offset = ("conv.weight", 0) if index < 6 else ("fc.bias", 6) if index < 8 else ("norm.mean", 8)
    return f"element {index - offset} of '{name}'"


@quick
@given(vectors)
def test_what_may_be_folded_comes_back_bit_for_bit(vector: Vector) -> None:
    good = update(section(vector.tobytes(), MANIFEST))
    found = checked(good).delta
    assert plain(found).tobytes() == vector.tobytes()
    assert plain(found).dtype == np.float32
    assert plain(found).shape == (9,)
    assert found.magnitude == max(abs(vector).max(), 0)
    assert np.shares_memory(plain(found), np.frombuffer(good.sections[0].data, np.uint8)), "no copy"


def test_a_model_without_values_may_be_folded() -> None:
    empty = Manifest(arrays=(ArraySpec(name="a", shape=(0,)),))
    found = checked(update(section(b"", empty.digest)), ExpectedUpdate((DELTA,), "f32", empty, 100.0, 1e12))
    assert plain(found.delta).shape == (0,)


@pytest.mark.parametrize("size", [0, 1, 35, 37, 72])
def test_wrong_size(size: int) -> None:
    assert refused(update(section(b"\0" * size, MANIFEST))) == (
        "wrong-size",
        f"delta.data: {size} bytes, expected 36",
    )


def test_wrong_manifest_of_the_same_size() -> None:
    other = "ab" * 32
    assert refused(update(section(values().tobytes(), other))) == (
        "wrong-manifest",
        f"delta.manifest: abababababab, expected {MANIFEST.digest[:12]}",
    )


@pytest.mark.parametrize("names", [("control",), ("control", "delta"), ("delta", "delta")])
def test_wrong_sections(names: tuple[str, ...]) -> None:
    reason, detail = refused(update(*(section(values().tobytes(), MANIFEST, name=name) for name in names)))
    assert reason == "wrong-manifest"
    assert detail == f"sections: {list(names)}, expected ['delta']"


def test_wrong_digest() -> None:
    content = digest_of(MANIFEST, values().tobytes())
    assert refused(update(section(values().tobytes(), MANIFEST), digest="cd" * 32)) == (
        "wrong-digest",
        f"digest: cdcdcdcdcdcd, but the content has {content[:12]}",
    )


@quick
@given(st.integers(0, 35), st.integers(1, 255))
def test_any_byte_that_changed_on_the_way_is_noticed(index: int, flip: int) -> None:
    good = update(section(values().tobytes(), MANIFEST))
    data = bytearray(values().tobytes())
    data[index] ^= flip
    assert refused(update(section(bytes(data), MANIFEST), digest=good.digest))[0] == "wrong-digest"


@quick
@given(
    st.integers(0, 8),
    st.sampled_from((float("nan"), float("inf"), float("-inf"))),
    st.booleans(),
)
@pytest.mark.filterwarnings("error")
def test_not_finite_says_where(index: int, value: float, too_large_elsewhere: bool) -> None:
    vector = values((8 - index, 1e30)) if too_large_elsewhere and index != 4 else values()
    vector[index] = value
    assert refused(update(section(vector.tobytes(), MANIFEST))) == (
        "not-finite",
        f"delta: {place(index)} is {value}, expected a finite number",
    )


@quick
@given(
    st.integers(0, 7),
    st.floats(float(np.nextafter(np.float32(100), np.float32(200))), float(np.float32(3e38)), width=32),
)
def test_too_large(index: int, value: float) -> None:
    for signed in (value, -value):
        reason, detail = refused(update(section(values((index, signed)).tobytes(), MANIFEST)))
        assert reason == "too-large"
        assert detail == (
            f"delta: {place(index)}: a value of magnitude {value:g}, expected at most 100 (--max-delta)"
        )


@pytest.mark.parametrize("value", [206152.0, -1e12])
def test_a_buffer_may_be_larger_than_a_parameter(value: float) -> None:
    found = checked(update(section(values((8, value)).tobytes(), MANIFEST))).delta
    assert (float(plain(found)[8]), found.magnitude) == (
        float(np.float32(value)),
        abs(float(np.float32(value))),
    )


def test_a_buffer_has_a_cap_too() -> None:
    assert refused(update(section(values((8, -2e12)).tobytes(), MANIFEST))) == (
        "too-large",
        f"delta: {place(8)}: a value of magnitude 2e+12, expected at most 1e+12 (--max-buffer)",
    )
    narrow = ExpectedUpdate((DELTA,), "f32", MANIFEST, 100.0, 2.0)
    assert refused(update(section(values((8, 3.0)).tobytes(), MANIFEST)), narrow) == (
        "too-large",
        f"delta: {place(8)}: a value of magnitude 3, expected at most 2 (--max-buffer)",
    )
    assert checked(update(section(values((0, 3.0)).tobytes(), MANIFEST)), narrow).delta.magnitude == 3.0


def test_a_parameter_beside_a_large_buffer_is_named() -> None:
    reason, detail = refused(update(section(values((6, 101.0), (8, 206152.0)).tobytes(), MANIFEST)))
    assert (reason, place(6) in detail, "--max-delta" in detail) == ("too-large", True, True)


@pytest.mark.parametrize("value", [100.0, -100.0])
def test_exactly_the_cap_is_allowed(value: float) -> None:
    assert checked(update(section(values((3, value)).tobytes(), MANIFEST))).delta.values[3:4] == [value]


# --- several sections -------------------------------------------------------------------------------------


def two(control: bytes, delta: bytes, **changes: Any) -> Update:
    return update(section(control, MANIFEST, name="control"), section(delta, MANIFEST), **changes)


def test_all_sections_that_are_expected_come_back() -> None:
    control, delta = values((0, 7.0)), values((1, -9.0))
    found = checked(two(control.tobytes(), delta.tobytes()), TWO)
    assert {name: plain(one).tobytes() for name, one in found.sections.items()} == {
        "control": control.tobytes(),
        "delta": delta.tobytes(),
    }
    assert (found.sections["control"].magnitude, found.delta.magnitude) == (7.0, 9.0)
    assert found.manifest == MANIFEST


def test_the_digest_is_of_all_sections() -> None:
    good = two(values().tobytes(), values().tobytes())
    other = two(values((0, 1.5)).tobytes(), values().tobytes(), digest=good.digest)
    assert refused(other, TWO)[0] == "wrong-digest"


@pytest.mark.parametrize("names", [("delta",), ("control",), ("delta", "control"), ("control", "momentum")])
def test_two_sections_are_expected_and_others_came(names: tuple[str, ...]) -> None:
    bad = update(*(section(values().tobytes(), MANIFEST, name=name) for name in names))
    assert refused(bad, TWO) == (
        "wrong-manifest",
        f"sections: {list(names)}, expected ['control', 'delta']",
    )


def test_what_is_wrong_with_one_of_two_sections_names_it() -> None:
    good = values().tobytes()
    assert refused(two(good[:-4], good), TWO) == ("wrong-size", "control.data: 32 bytes, expected 36")
    assert refused(two(good, good + good), TWO) == ("wrong-size", "delta.data: 72 bytes, expected 36")
    assert refused(two(values((6, math.nan)).tobytes(), good), TWO) == (
        "not-finite",
        "control: element 0 of 'fc.bias' is nan, expected a finite number",
    )
    assert refused(two(values((0, 101.0)).tobytes(), good), TWO) == (
        "too-large",
        "control: element 0 of 'conv.weight': a value of magnitude 101, expected at most 100 (--max-delta)",
    )
    other = update(section(good, "ab" * 32, name="control"), section(good, MANIFEST))
    assert refused(other, TWO) == (
        "wrong-manifest",
        f"control.manifest: abababababab, expected {MANIFEST.digest[:12]}",
    )


# --- encodings --------------------------------------------------------------------------------------------


@pytest.fixture
def float16(monkeypatch: pytest.MonkeyPatch) -> Float16:
    encoding = Float16()
    monkeypatch.setitem(ENCODINGS, "f16", encoding)
    return encoding


def test_5_12_an_update_in_another_encoding_than_selected(float16: Float16) -> None:
    data = bytes(float16.encode(values(), seed=0))
    half = update(section(data, MANIFEST).model_copy(update={"encoding": "f16"}))
    assert refused(half) == ("wrong-encoding", "delta.encoding: 'f16', expected 'f32' as selected")


def test_what_is_expected_in_another_encoding_has_its_length_and_its_values(float16: Float16) -> None:
    expected = ExpectedUpdate((DELTA,), "f16", MANIFEST, 100.0, 1e12)
    vector = np.arange(MANIFEST.values, dtype=np.float32) / np.float32(4)
    data = bytes(SectionFormat.of(float16.name, MANIFEST).encode(vector, seed=0))
    good = update(section(data, MANIFEST).model_copy(update={"encoding": "f16"}))
    assert np.array_equal(checked(good, expected).delta.values[:], vector)
    short = update(section(data[:-1], MANIFEST).model_copy(update={"encoding": "f16"}))
    assert refused(short, expected) == ("wrong-size", "delta.data: 19 bytes, expected 20")


# --- first weights ----------------------------------------------------------------------------------------


def first_refused(bad: Update) -> tuple[str, str]:
    return refused(bad, FIRST)


def test_first_weights_bring_their_manifest_and_may_be_large() -> None:
    vector = values((0, 1e6))
    found = checked(update(section(vector.tobytes(), MANIFEST, arrays=MANIFEST.arrays)), FIRST)
    assert found.manifest == MANIFEST
    assert found.delta.values[:].tobytes() == vector.tobytes()


def test_first_weights_without_arrays() -> None:
    assert first_refused(update(section(values().tobytes(), MANIFEST))) == (
        "wrong-manifest",
        "delta.arrays: missing, expected in initial weights",
    )


def test_first_weights_whose_arrays_are_no_manifest() -> None:
    twice = (ArraySpec(name="a", shape=(4,)), ArraySpec(name="a", shape=(5,)))
    reason, detail = first_refused(update(section(values().tobytes(), MANIFEST, arrays=twice)))
    assert reason == "wrong-manifest"
    assert detail.endswith("names must be unique and in ascending order")
    huge = tuple(ArraySpec(name=f"{n}", shape=(2**33,)) for n in range(3))
    reason, detail = first_refused(update(section(b"", MANIFEST, arrays=huge)))
    assert reason == "wrong-manifest"
    assert "at most 8589934592" in detail


def test_first_weights_with_another_manifest_than_they_say() -> None:
    other = Manifest(arrays=(ArraySpec(name="a", shape=(9,)),))
    says = update(section(values().tobytes(), MANIFEST.digest, arrays=other.arrays))
    assert first_refused(says) == (
        "wrong-manifest",
        f"delta.manifest: {MANIFEST.digest[:12]}, expected {other.digest[:12]}",
    )


def test_first_weights_that_no_receiver_would_take() -> None:
    huge = (ArraySpec(name="a", shape=(2**30,)),)
    bad = update(section(b"", Manifest(arrays=huge), arrays=huge))
    assert first_refused(bad) == ("wrong-size", "delta.data: 4294967296 bytes, expected at most 2147483648")


def test_first_weights_of_another_size() -> None:
    assert first_refused(update(section(b"\0" * 35, MANIFEST, arrays=MANIFEST.arrays)))[0] == "wrong-size"


def test_first_weights_with_another_digest() -> None:
    bad = update(section(values().tobytes(), MANIFEST, arrays=MANIFEST.arrays), digest="cd" * 32)
    assert first_refused(bad)[0] == "wrong-digest"


def test_first_weights_that_are_not_finite() -> None:
    vector = values((7, float("nan")))
    assert first_refused(update(section(vector.tobytes(), MANIFEST, arrays=MANIFEST.arrays))) == (
        "not-finite",
        "delta: element 1 of 'fc.bias' is nan, expected a finite number",
    )


@pytest.mark.parametrize("encoding", ["bf16", "q8", "shuffle-deflate", "topk:0.5"])
def test_5_12_what_is_not_delta_stays_float32(encoding: str) -> None:
    expected = ExpectedUpdate(("control", DELTA), encoding, MANIFEST, 100.0, 1e12)
    form = SectionFormat.of(encoding, MANIFEST)
    delta = section(bytes(form.encode(values(), seed=0)), MANIFEST).model_copy(update={"encoding": encoding})
    control = section(values().tobytes(), MANIFEST, name="control")
    assert (
        plain(checked(update(control, delta), expected).sections["control"]).tobytes() == values().tobytes()
    )
    wrong = control.model_copy(update={"encoding": encoding, "data": delta.data})
    assert refused(update(wrong, delta), expected) == (
        "wrong-encoding",
        f"control.encoding: {encoding!r}, expected 'f32' as selected",
    )


@pytest.mark.parametrize("encoding", ["bf16", "q8", "shuffle-deflate", "topk:0.5"])
def test_the_cap_is_of_what_is_decoded(encoding: str) -> None:
    expected = ExpectedUpdate((DELTA,), encoding, MANIFEST, 100.0, 1e12)
    form = SectionFormat.of(encoding, MANIFEST)

    def sent(vector: Vector) -> Update:
        data = bytes(form.encode(vector, seed=0))
        return update(section(data, MANIFEST).model_copy(update={"encoding": encoding}))

    large = refused(sent(values((3, 200.0))), expected)
    assert (large[0], place(3) in large[1], "--max-delta" in large[1]) == ("too-large", True, True)
    assert checked(sent(values((8, 206152.0))), expected).delta.values[8:9] == [206152.0], "a buffer, exactly"


def test_3_10_places_in_disorder_are_malformed() -> None:
    expected = ExpectedUpdate((DELTA,), "topk:0.5", MANIFEST, 100.0, 1e12)
    data = bytearray(SectionFormat.of("topk:0.5", MANIFEST).encode(values(), seed=0))
    start = 4 * sum(array.values for array in MANIFEST.arrays if array.role == "buffer")
    data[start : start + 4] = b"\xff\xff\xff\xff"
    bad = update(section(bytes(data), MANIFEST).model_copy(update={"encoding": "topk:0.5"}))
    reason, detail = refused(bad, expected)
    assert reason == "malformed"
    assert "delta.data: place 1 after 4294967295, expected ascending places" in detail
