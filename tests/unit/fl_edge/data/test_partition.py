"""Whose part of a data set is whose."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_edge.data.partition import hold_out, partitions, split
from fl_shared.protocol.messages import Partition
from fl_shared.protocol.partition_scheme import (
    Dirichlet,
    Iid,
    Natural,
    OwnData,
    Pathological,
    Quantity,
    Shards,
    parse_scheme,
)
from tests.support import builders

LABELS = np.random.default_rng(1).integers(0, 10, 6000)
SCHEMES = ["iid", "shards", "dirichlet:0.3", "dirichlet:0.001", "quantity:0.3", "quantity:0.001"]


def partition(**changes: Any) -> Partition:
    return builders.partition(**{"seed": 7} | changes)


@given(
    scheme=st.sampled_from(SCHEMES),
    count=st.integers(1, 40),
    extra=st.integers(0, 500),
    seed=st.integers(0, 2**53),
    classes=st.integers(1, 12),
    drawn=st.data(),
)
def test_parts_are_disjoint_and_together_the_chosen_examples(
    scheme: str, count: int, extra: int, seed: int, classes: int, drawn: st.DataObject
) -> None:
    available = 2 * count + extra
    labels = np.random.default_rng(seed).integers(0, classes, available)
    examples = drawn.draw(st.none() | st.integers(2 * count, available))
    found = partitions(labels, partition(scheme=scheme, count=count, seed=seed, examples=examples))
    everything = np.concatenate(found)
    assert len(found) == count
    assert all(len(part) for part in found)
    assert len(np.unique(everything)) == len(everything) == (examples or available)
    assert everything.min() >= 0
    assert everything.max() < available


@pytest.mark.parametrize("scheme", [*SCHEMES, "own"])
def test_every_edge_computes_the_same_parts(scheme: str) -> None:
    theirs = partitions(LABELS, partition(scheme=scheme, index=3, holdout=0.5))
    for index in (0, 7):
        train, held = split(LABELS, partition(scheme=scheme, index=index))
        mine = np.sort(np.concatenate([train, held]))
        np.testing.assert_array_equal(mine, theirs[0 if scheme == "own" else index])


def test_the_parts_of_a_seed_never_change() -> None:
    """Edges of different versions must agree. If NumPy's streams have changed: say so in the change log."""
    sha = hashlib.sha256()
    for scheme in ("iid", "shards", "dirichlet:0.5", "quantity:0.5", "pathological:3"):
        for part in partitions(np.arange(2000) % 10, partition(scheme=scheme, examples=1500)):
            sha.update(part.astype("<i8").tobytes())
    assert sha.hexdigest() == "2678ff751be8e68c748f19800fa5f94451ce9b185410e4e7a8fe6c6fe92d411c"


def test_iid_parts_are_of_equal_size_to_one() -> None:
    sizes = {len(part) for part in partitions(LABELS, partition(count=7))}
    assert sizes == {857, 858}


def test_shards_give_each_part_few_classes() -> None:
    labels = np.arange(6000) % 10
    classes = [len(np.unique(labels[part])) for part in partitions(labels, partition(scheme="shards"))]
    # 40 shards of 150 of 10 classes of 600: a shard lies within one class.
    assert max(classes) == 2


def test_a_small_alpha_skews_labels_and_a_large_one_does_not() -> None:
    def largest_share(scheme: str) -> float:
        shares = [
            np.bincount(LABELS[part], minlength=10).max() / len(part)
            for part in partitions(LABELS, partition(scheme=scheme))
        ]
        return float(np.mean(shares))

    assert largest_share("dirichlet:0.05") > 0.5
    assert largest_share("dirichlet:1000") < 0.2


def test_quantity_skews_sizes_and_not_labels() -> None:
    found = partitions(LABELS, partition(scheme="quantity:0.3"))
    sizes = [len(part) for part in found]
    assert max(sizes) > 10 * min(sizes)
    largest = found[int(np.argmax(sizes))]
    assert np.bincount(LABELS[largest], minlength=10).max() < 0.15 * len(largest)


@pytest.mark.parametrize("scheme", ["dirichlet:0.001", "quantity:0.001"])
def test_the_most_uneven_schemes_leave_everyone_enough(scheme: str) -> None:
    assert min(len(part) for part in partitions(LABELS, partition(scheme=scheme))) == 8
    tight = partitions(LABELS[:45], partition(scheme=scheme))
    assert min(len(part) for part in tight) == 1


def test_own_is_everything_whatever_the_index() -> None:
    train, held = split(LABELS, partition(scheme="own", index=99, count=3, holdout=0.0))
    np.testing.assert_array_equal(train, np.arange(6000))
    assert len(held) == 0


@pytest.mark.parametrize(("holdout", "held"), [(0.0, 0), (0.2, 60), (0.5, 150), (0.999, 299)])
def test_the_holdout_is_a_share_of_the_part_and_leaves_something(holdout: float, held: int) -> None:
    train, kept = split(LABELS, partition(holdout=holdout))
    assert (len(train), len(kept)) == (300 - held, held)
    assert not set(train) & set(kept)


def test_the_holdout_never_takes_the_last_example() -> None:
    train, kept = hold_out(np.array([42]), partition(holdout=0.9))
    assert (list(train), list(kept)) == ([42], [])


def test_the_holdout_does_not_follow_the_order_of_the_part() -> None:
    _, kept = split(LABELS, partition(holdout=0.5, scheme="own"))
    assert 2000 < np.median(kept) < 4000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": 20}, r"index: 20, expected less than count \(20\)"),
        ({"count": 6001, "index": 6000}, "count: 6001 partitions, but the data set has only 6000"),
        ({"examples": 19}, "count: 20 partitions, but the data set has only 19"),
        ({"examples": 6001}, "examples: 6001, but the data set has only 6000"),
        (
            {"scheme": "shards", "examples": 39},
            "shards needs 40 examples for 20 partitions, but there are 39",
        ),
        (
            {"scheme": "pathological:11"},
            r"pathological:11, but the data set has 10 classes \(expected 1 to 10 for 20 partitions\)",
        ),
        ({"scheme": "pathological:1", "count": 4}, r"has 10 classes \(expected 3 to 10 for 4 partitions\)"),
        (
            {"scheme": "pathological:9", "examples": 100},
            "gives class . to 18 partitions, but it has only . examples",
        ),
        ({"scheme": "fair"}, "'fair'"),
        ({"scheme": "natural"}, "scheme: natural, but this data set has no natural parts"),
    ],
)
def test_what_does_not_fit_the_data_set_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(LABELS, partition(**changes))


def test_a_data_set_without_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="no examples"):
        split(LABELS[:0], partition(count=1))


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("iid", Iid()),
        ("shards", Shards()),
        ("pathological:3", Pathological(3)),
        ("natural", Natural()),
        ("own", OwnData()),
        ("dirichlet:0.5", Dirichlet(0.5)),
        ("quantity:1e3", Quantity(1000.0)),
    ],
)
def test_schemes_are_read(text: str, scheme: object) -> None:
    assert parse_scheme(text) == scheme


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected iid, shards, pathological:K, dirichlet:ALPHA"),
        ("IID", "expected iid"),
        ("iid:1", "expected iid"),
        ("dirichlet", "ALPHA is missing; expected, for example, dirichlet:0.5"),
        ("pathological", "K is missing; expected, for example, pathological:2"),
        ("pathological:0", "K is '0', expected a whole number from 1 to 1000"),
        ("pathological:1001", "K is '1001', expected a whole number"),
        ("pathological:2.5", "K is '2.5', expected a whole number"),
        ("quantity:", "ALPHA is '', expected a number"),
        ("dirichlet:many", "ALPHA is 'many', expected a number"),
        ("dirichlet:nan", "expected 0.001"),
        ("dirichlet:0", "expected 0.001"),
        ("quantity:-1", "expected 0.001"),
        ("quantity:inf", "expected 0.001"),
    ],
)
def test_other_schemes_are_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_scheme(text)
    assert repr(text) in str(caught.value)
