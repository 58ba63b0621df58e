"""Whether an update's bytes are what it says: each reason of `docs/protocol.md`, 5.6, that values can give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_aggregator.aggregation.validation import InvalidUpdate, first_weights_of, weights_of
from fl_aggregator.storage.update_content import Content
from fl_shared.protocol.messages import Update
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from tests.support.builders import digest_of, fold_settings, section, update

MANIFEST = Manifest(
    arrays=(
        ArraySpec(name="conv.weight", shape=(2, 3)),
        ArraySpec(name="empty", shape=(0, 4)),
        ArraySpec(name="fc.bias", shape=(2,)),
        ArraySpec(name="norm.mean", shape=(1,), role="buffer"),
    )
)
CAPS = fold_settings()
quick = settings(deadline=None, max_examples=100)
finite = st.floats(-100, 100, width=32)
vectors = st.lists(finite, min_size=9, max_size=9).map(lambda values: np.array(values, dtype="<f4"))


def values(*changed: tuple[int, float]) -> Vector:
    vector = np.linspace(-1, 1, 9, dtype="<f4")
    for index, value in changed:
        vector[index] = value
    return vector


def refused(bad: Update) -> tuple[str, str]:
    with pytest.raises(InvalidUpdate) as caught:
        weights_of(Content.of(bad), MANIFEST, CAPS)
    return caught.value.reason, str(caught.value)


@quick
@given(vectors)
def test_what_may_be_folded_comes_back_bit_for_bit(vector: Vector) -> None:
    found, largest = weights_of(Content.of(update(section(vector.tobytes(), MANIFEST))), MANIFEST, CAPS)
    assert found.tobytes() == vector.tobytes()
    assert found.dtype == np.float32
    assert found.shape == (9,)
    assert largest == max(abs(vector).max(), 0)


def test_a_model_without_values_may_be_folded() -> None:
    empty = Manifest(arrays=(ArraySpec(name="a", shape=(0,)),))
    assert weights_of(Content.of(update(section(b"", empty.digest))), empty, CAPS)[0].shape == (0,)


@pytest.mark.parametrize("size", [0, 1, 35, 37, 72])
def test_wrong_size(size: int) -> None:
    assert refused(update(section(b"\0" * size, MANIFEST))) == (
        "wrong-size",
        f"weights.data: {size} bytes, expected 36",
    )


def test_wrong_manifest_of_the_same_size() -> None:
    other = "ab" * 32
    assert refused(update(section(values().tobytes(), other))) == (
        "wrong-manifest",
        f"weights.manifest: abababababab, expected {MANIFEST.digest[:12]}",
    )


@pytest.mark.parametrize("names", [("control",), ("control", "weights"), ("weights", "weights")])
def test_wrong_sections(names: tuple[str, ...]) -> None:
    reason, detail = refused(update(*(section(values().tobytes(), MANIFEST, name=name) for name in names)))
    assert reason == "wrong-manifest"
    assert detail == f"sections: {list(names)}, expected ['weights']"


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
    name, offset = ("conv.weight", 0) if index < 6 else ("fc.bias", 6) if index < 8 else ("norm.mean", 8)
    assert refused(update(section(vector.tobytes(), MANIFEST))) == (
        "not-finite",
        f"weights: element {index - offset} of '{name}' is {value}, expected a finite number",
    )


@quick
@given(
    st.integers(0, 8),
    st.floats(float(np.nextafter(np.float32(100), np.float32(200))), float(np.float32(3e38)), width=32),
)
def test_too_large(index: int, value: float) -> None:
    for signed in (value, -value):
        reason, detail = refused(update(section(values((index, signed)).tobytes(), MANIFEST)))
        assert reason == "too-large"
        assert detail == f"weights: a value of magnitude {value:g}, expected at most 100 (--max-delta)"


@pytest.mark.parametrize("value", [100.0, -100.0])
def test_exactly_the_cap_is_allowed(value: float) -> None:
    assert (
        weights_of(Content.of(update(section(values((3, value)).tobytes(), MANIFEST))), MANIFEST, CAPS)[0][3]
        == value
    )


# --- first weights ----------------------------------------------------------------------------------------


def first_refused(bad: Update, expected: str | None = MANIFEST.digest) -> tuple[str, str]:
    with pytest.raises(InvalidUpdate) as caught:
        first_weights_of(Content.of(bad), expected)
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("expected", [None, MANIFEST.digest])
def test_first_weights_bring_their_manifest_and_may_be_large(expected: str | None) -> None:
    vector = values((0, 1e6))
    manifest, found = first_weights_of(
        Content.of(update(section(vector.tobytes(), MANIFEST, arrays=MANIFEST.arrays))), expected
    )
    assert manifest == MANIFEST
    assert found.tobytes() == vector.tobytes()


def test_first_weights_without_arrays() -> None:
    assert first_refused(update(section(values().tobytes(), MANIFEST))) == (
        "wrong-manifest",
        "weights.arrays: missing, expected in initial weights",
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


def test_first_weights_with_another_manifest_than_they_say_or_than_the_run_has() -> None:
    other = Manifest(arrays=(ArraySpec(name="a", shape=(9,)),))
    says = update(section(values().tobytes(), MANIFEST.digest, arrays=other.arrays))
    assert first_refused(says)[0] == first_refused(says, None)[0] == "wrong-manifest"
    honest = update(section(values().tobytes(), other.digest, arrays=other.arrays))
    reason, detail = first_refused(honest)
    assert reason == "wrong-manifest"
    assert MANIFEST.digest[:12] in detail
    assert other.digest[:12] in detail
    assert first_weights_of(Content.of(honest), None)[0] == other


def test_first_weights_of_another_size() -> None:
    assert first_refused(update(section(b"\0" * 35, MANIFEST, arrays=MANIFEST.arrays)))[0] == "wrong-size"


def test_first_weights_with_another_digest() -> None:
    bad = update(section(values().tobytes(), MANIFEST, arrays=MANIFEST.arrays), digest="cd" * 32)
    assert first_refused(bad)[0] == "wrong-digest"


def test_first_weights_that_are_not_finite() -> None:
    vector = values((7, float("nan")))
    assert first_refused(update(section(vector.tobytes(), MANIFEST, arrays=MANIFEST.arrays))) == (
        "not-finite",
        "weights: element 1 of 'fc.bias' is nan, expected a finite number",
    )
