"""Who is unlike the others: cosines, shares, influences, and who is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fl_aggregator.aggregation.similarity import MAX_PAIRED, compare, of_gram
from fl_aggregator.configuration.settings import parse_settings
from fl_aggregator.monitoring.views.similarity_map import groups_of
from fl_aggregator.round.events import Similarity
from fl_shared.errors import UserError
from fl_shared.tensors.manifest import Vector, manifest_of
from tests.support.builders import update_metadata

VALUES = 200
MANIFEST = manifest_of({"a": np.zeros(VALUES, "<f4"), "mean": np.zeros(3, "<f4")}, ["mean"])


def updates(changed: Mapping[str, float], count: int = 8) -> dict[str, Vector]:
    """Updates that go more or less in one direction; those of some edges are multiplied."""
    chance = np.random.default_rng(0)
    common = chance.normal(size=VALUES)
    found = {}
    for index in range(count):
        delta = (common + 0.7 * chance.normal(size=VALUES)) * changed.get(str(index), 1.0)
        found[str(index)] = np.append(delta, chance.normal(size=3) * 1e6).astype("<f4")
    return found


def compared(rows: Mapping[str, Vector], examples: Mapping[str, int] | None = None) -> Similarity:
    known = examples or {}
    metadata = [update_metadata(client=name, examples=known.get(name, 10)) for name in rows]
    found = compare(metadata, rows.__getitem__, MANIFEST)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"3": -1.0}, "cosine -"), ({"3": -5.0}, "cosine -"), ({"3": 20.0}, "times as long as the median")],
)
def test_who_goes_the_other_way_or_much_too_far_is_named(changed: dict[str, float], reason: str) -> None:
    found = compared(updates(changed))
    assert list(found.outliers) == ["3"]
    assert reason in found.outliers["3"]


def test_nobody_is_named_if_all_are_alike_and_buffers_play_no_role() -> None:
    assert compared(updates({})).outliers == {}


def test_the_order_of_the_updates_changes_nothing() -> None:
    rows = updates({"1": -3.0})
    assert compared(rows) == compared(dict(reversed(rows.items())))


def test_shares_and_influences_are_those_of_leaving_one_out() -> None:
    rows = updates({"2": -2.0, "5": 1.5}, count=6)
    examples = {name: 10 + 7 * int(name) for name in rows}
    found = compared(rows, examples)
    deltas = np.stack([rows[name][:VALUES].astype(np.float64) for name in found.clients])
    weights = np.array([examples[name] for name in found.clients], np.float64)
    mean = np.average(deltas, axis=0, weights=weights)
    for index in range(len(deltas)):
        rest = np.delete(np.arange(len(deltas)), index)
        without = np.average(deltas[rest], axis=0, weights=weights[rest])
        influence = np.linalg.norm(mean - without) / np.linalg.norm(mean)
        share = weights[index] / weights.sum() * (deltas[index] @ mean) / (mean @ mean)
        assert found.influences[index] == pytest.approx(influence, rel=1e-3)
        assert found.shares[index] == pytest.approx(share, rel=1e-3, abs=1e-4)
    assert sum(found.shares) == pytest.approx(1, abs=1e-3)
    assert found.shares[found.clients.index("2")] < 0


def test_the_median_length_is_in_units_of_the_model() -> None:
    rows = updates({"2": -2.0, "5": 1.5}, count=7)
    found = compared(rows)
    lengths = [np.linalg.norm(rows[name][:VALUES].astype(np.float64)) for name in found.clients]
    middle = found.median_length
    assert middle is not None
    assert middle == pytest.approx(np.median(lengths), rel=1e-3)
    assert [one * middle for one in found.lengths] == pytest.approx(lengths, rel=1e-3)


def test_edges_that_are_alike_are_a_group() -> None:
    chance = np.random.default_rng(1)
    first, second = chance.normal(size=(2, VALUES))
    rows = {
        str(k): np.append(
            (first if k % 2 else second) + 0.3 * chance.normal(size=VALUES), np.zeros(3)
        ).astype("<f4")
        for k in range(7)
    }
    assert groups_of(compared(rows)) == [["0", "2", "4", "6"], ["1", "3", "5"]]


def test_updates_without_a_change_are_compared_too() -> None:
    rows = {name: np.zeros(VALUES + 3, "<f4") for name in "abc"}
    found = compared(rows)
    assert found.outliers == {}
    assert found.to_others == (0.0, 0.0, 0.0)


def test_of_two_nobody_is_unlike_the_others() -> None:
    rows = updates({}, count=2)
    assert compare([update_metadata(client=n) for n in rows], rows.__getitem__, MANIFEST) is None


def test_of_very_many_edges_the_pairs_are_left_out() -> None:
    count = MAX_PAIRED + 1
    found = of_gram([str(k) for k in range(count)], np.ones(count), np.eye(count))
    assert found.cosines == ()
    assert groups_of(found) == []


def test_it_needs_updates_on_the_disk() -> None:
    values: dict[str, Any] = {"similarity": 2, "durability": "memory"}
    with pytest.raises(
        UserError, match=r"--similarity: 2 needs updates on the disk .* but --durability is memory"
    ):
        parse_settings(**values)


def test_a_run_has_a_version_to_compare() -> None:
    assert parse_settings(similarity=3, rounds=3).similarity == 3
    said = "^--similarity: 3 compares the updates of every 3 versions, but --rounds is 2$"
    with pytest.raises(UserError, match=said):
        parse_settings(similarity=3, rounds=2)


@pytest.mark.parametrize(
    ("few", "said"),
    [
        ({"clients": 2}, "--clients is 2"),
        ({"per_round": 2}, "--per-round is 2"),
        ({"mode": "async", "buffer": 2}, "--buffer is 2"),
    ],
)
def test_it_needs_three_updates(few: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"^--similarity: 1 compares at least 3 updates, but {said}$"):
        parse_settings(similarity=1, **few)
