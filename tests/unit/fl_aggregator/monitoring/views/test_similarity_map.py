"""What ``fl/history`` says of the edges that are alike: in groups, a byte for each pair (protocol, 8.9)."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from fl_aggregator.monitoring.views.history import RoundHistory
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.monitoring.views.similarity_map import similarity_map
from fl_aggregator.round.events import Similarity
from fl_shared.protocol import messages as m
from fl_shared.system import base64url
from tests.support.compared_updates import compared


def record(number: int, found: Similarity | None) -> RoundRecord:
    return RoundRecord(round=number, outcome="committed", version=number, similarity=found)


def test_the_cosines_are_those_of_the_edges_in_the_order_of_their_groups() -> None:
    found = compared(7, 2, "{}")
    made = similarity_map(record(3, found))
    assert made is not None
    assert (made.round, made.edges, made.groups) == (3, ("2", "3", "4", "5", "6", "0", "1"), (5, 2))
    assert made.outliers == found.outliers
    pairs = np.frombuffer(base64url.decoded(made.cosines), np.int8)
    wanted = [
        found.cosines[int(one)][int(other)]
        for place, one in enumerate(made.edges)
        for other in made.edges[place + 1 :]
    ]
    assert pairs / 100 == pytest.approx(wanted, abs=0.005)


def test_a_hundred_edges_take_a_few_kilobytes_and_of_more_there_is_no_map() -> None:
    made = similarity_map(record(1, compared(m.MAX_MAPPED, 30, f"{{:02}}{'n' * 62}")))
    assert made is not None
    assert len(made.edges) == m.MAX_MAPPED
    assert len(made.cosines) == 6600
    assert len(made.outliers) == m.MAX_OUTLIERS
    assert len(made.model_dump_json()) < 17_000
    more = similarity_map(record(1, compared(m.MAX_MAPPED + 1, 2)))
    assert more is not None
    assert (more.edges, more.groups, more.cosines) == ((), (), "")
    assert sorted(more.outliers) == ["edge-0", "edge-1"]


def test_the_newest_compared_round_is_kept() -> None:
    history = RoundHistory()
    assert similarity_map(history.compared) is None
    for number, found in ((1, compared(4, 1)), (2, compared(5, 1)), (3, None)):
        history.add(record(number, found))
    history.add(record(1, compared(4, 1)))  # evaluated late
    made = similarity_map(history.compared)
    assert made is not None
    assert (made.round, len(made.edges)) == (2, 5)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"edges": ("1", "1", "2")}, "different edges"),
        ({"groups": (2, 2)}, "groups of 3"),
        ({"groups": (3, 0)}, "greater than or equal to 1"),
        ({"cosines": "AAAAA"}, "those of 3 cosines"),
        ({"cosines": "AA A"}, "should match pattern"),
        ({"edges": tuple(map(str, range(101)))}, "at most 100"),
        ({"outliers": {str(number): "" for number in range(21)}}, "at most 20"),
    ],
)
def test_what_is_not_of_the_same_edges_is_no_map(wrong: dict[str, object], reason: str) -> None:
    right = {"round": 1, "edges": ("1", "2", "3"), "groups": (2, 1), "cosines": "AAAA", "outliers": {}}
    assert m.SimilarityMap.model_validate(right)
    with pytest.raises(ValidationError, match=reason):
        m.SimilarityMap.model_validate(right | wrong)
