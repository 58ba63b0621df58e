"""No number of a few examples is shown, and none follows from those that are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fl_aggregator.tools.survey.cells import Cells, cells_of

counts = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 40), min_size=1)


@given(counts, st.integers(1, 20))
def test_no_hidden_number_follows_from_the_others(cells: dict[str, int], least: int) -> None:
    found = cells_of(cells, least)
    assert all(number == 0 or number >= least for number in found.shown.values())
    assert found.others == len(cells) - len(found.shown)
    if found.others:
        left = sum(cells.values()) - sum(found.shown.values())  # with the total, everybody knows that
        assert found.others > 1 or left >= least or found.others_examples is None
        assert found.others_examples in (None, left)
        assert left >= least or all(number == 0 for number in found.shown.values())


@given(counts)
def test_all_numbers_are_shown_if_that_is_asked_for(cells: dict[str, int]) -> None:
    assert cells_of(cells, 1) == Cells(shown=cells)


def test_a_single_small_cell_takes_the_next_smallest_with_it() -> None:
    found = cells_of({"a": 100, "b": 3, "c": 7, "d": 0}, 5)
    assert found == Cells(shown={"a": 100, "d": 0}, others=2, others_examples=10)


def test_two_small_cells_are_enough_together() -> None:
    found = cells_of({"a": 100, "b": 3, "c": 4}, 5)
    assert found == Cells(shown={"a": 100}, others=2, others_examples=7)


def test_a_few_examples_in_all_are_not_shown() -> None:
    assert cells_of({"a": 1, "b": 2}, 5) == Cells(shown={}, others=2, others_examples=None)
