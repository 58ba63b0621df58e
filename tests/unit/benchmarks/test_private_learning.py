"""The tables of what private runs learn are those of the measured lines."""

from __future__ import annotations

import statistics

import private_learning as learning
import pytest


def test_the_document_has_the_tables() -> None:
    page = learning.PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- private_learning: ") >= 2
    assert page == learning.filled(page, learning.read_lines()), (
        "write it: python benchmarks/private_learning.py --document"
    )


def test_what_is_hardly_better_than_a_guess_is_called_nothing() -> None:
    assert learning.accuracy_text([]) == ""
    assert learning.accuracy_text([{"accuracy": 0.12}, {"accuracy": 0.14}]) == "13.0 ± 1.4: next to nothing"
    assert learning.accuracy_text([{"accuracy": 0.5}]) == "50.0"


@pytest.mark.parametrize("epsilon", learning.EPSILONS)
def test_noise_of_edges_costs_as_much_accuracy_as_that_of_the_aggregator(epsilon: float) -> None:
    """What the document says: the means differ by less than the seeds do."""
    lines = [
        line for line in learning.read_lines() if (line["task"], line["epsilon"]) == ("digits-20", epsilon)
    ]
    found = {
        name: [line["accuracy"] for line in lines if line["mechanism"] == name]
        for name in ("independent", "distributed")
    }
    assert {len(each) for each in found.values()} == {len(learning.SEEDS_WITH_FEW)}
    assert {line["spent"] for line in lines if line["mechanism"] == "distributed"} == {epsilon}
    one, other = (statistics.fmean(each) for each in found.values())
    assert abs(one - other) < min(statistics.stdev(each) for each in found.values())
