"""What is said of a private run: what it promises, how long its noise is, and what it has spent."""

from __future__ import annotations

from typing import Any

import pytest

from fl_aggregator.monitoring.views import privacy
from fl_aggregator.privacy.plan import PrivacyPlan, make_plan
from fl_shared.protocol import messages as m


def plan(**changes: Any) -> PrivacyPlan:
    usual: dict[str, Any] = {
        "mechanism": "central", "against": "wire", "clip": 0.5, "adaptive": False, "noise": None, "delta": 1e-5,
        "epsilon": 2.0, "apart": 10, "times": None, "bands": 1, "releases": 100, "insecure": False,
    }  # fmt: skip
    return make_plan(**{**usual, **changes})


def test_it_promises_something_against_somebody() -> None:
    (line,) = privacy.promise_lines(plan())
    assert line == (
        "differential privacy: whoever sees all models and knows who took part can guess whether one edge's data was "
        "used with at most 60 % accuracy; a coin toss gives 50 %; ε is at most 2 at δ = 1e-05; the aggregator is "
        "trusted to add the noise"
    )
    assert privacy.promise_lines(plan(insecure=True))[1:] == [
        "noise from a known seed: not private (--dp-insecure-seed)"
    ]


def test_secret_cohorts_promise_less_against_who_sees_them() -> None:
    pytest.importorskip("dp_accounting", reason="pip install 'fl-mqtt[dp]'")
    (line,) = privacy.promise_lines(
        plan(against="models", apart=1, releases=3, epsilon=8.0, rate=1 / 3, expected=20)
    )
    assert line.startswith(
        "differential privacy: whoever sees all models but does not know who took part can guess whether "
    )
    assert (
        "ε is at most 8 at δ = 1e-05, at most 12.8 against whoever sees all models and knows who took part; "
        in line
    )


def test_it_says_how_often_an_edge_contributes() -> None:
    assert (
        privacy.often_text(plan(), "versions")
        == "an edge contributes to at most 10 of 100 versions, and to at most one of 10 in a row; ε is 2 then"
    )
    assert "in a row" not in privacy.often_text(plan(apart=1), "versions")


@pytest.mark.parametrize(
    ("changes", "values", "per_round", "said"),
    [
        (
            {},
            650,
            100,
            "the noise of a version is 1.6 times as long as the longest possible mean update of 100 edges with 650 sh",
        ),
        ({"bands": 4}, 650, 100, "the noise of a version is 0.71 times as long"),
        (
            {},
            21_000,
            100,
            "with 21,000 shared parameters: little will be learnt; more edges a round, fewer shared ",
        ),
        (
            {"epsilon": 1.0, "apart": 1, "releases": 10},
            10_000,
            20,
            "59 times as long as the longest possible mean update of 20 edges with 10,000 shared parameters: nothing w",
        ),
    ],
)
def test_it_says_whether_anything_can_be_learnt(
    changes: dict[str, Any], values: int, per_round: int, said: str
) -> None:
    assert said in privacy.noise_line(plan(**changes), values, per_round)


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(0.0, "0"), (0.0042, "0.0042"), (0.421, "0.42"), (1.61, "1.6"), (65.4, "65"), (1234.0, "1,200")],
)
def test_ratios_have_two_digits(ratio: float, said: str) -> None:
    assert privacy.times_text(ratio) == said


@pytest.mark.parametrize(
    ("advantage", "said"),
    [
        (0.0, "hardly better than a coin toss: with at most 50 % accuracy (advantage 0)"),
        (0.12, "hardly better than a coin toss: with at most 56 % accuracy (advantage 0.12)"),
        (0.121, "hardly better than a coin toss: with at most 57 % accuracy (advantage 0.12)"),
        (0.5, "better than a coin toss: with at most 75 % accuracy (advantage 0.5)"),
        (0.999, "much better than a coin toss: with at most 100 % accuracy (advantage 1)"),
    ],
)
def test_an_attacker_is_compared_with_a_coin(advantage: float, said: str) -> None:
    assert privacy.guess_text(advantage) == said


def test_what_is_spent_names_the_budget_and_the_edge() -> None:
    spent = m.PrivacySpent(
        mechanism="central", against="wire", trusted="aggregator", clip=0.5, noise=6.3, sensitivity=1.414, mu=0.224,
        epsilon=0.823, delta=1e-5, advantage=0.09, budget=2.0, releases=12, spent_by="e7",
    )  # fmt: skip
    assert (
        privacy.spent_line(spent)
        == "privacy: ε 0.823 of 2 at δ = 1e-05, spent by 12 versions, most of edge e7"
    )
    assert (
        privacy.status_line(spent.status)
        == "privacy: ε 0.823 of 2 at δ = 1e-05, to whoever sees all models and knows who took part"
    )
    known = spent.model_copy(update={"insecure": True})
    for line in (privacy.spent_line(known), privacy.status_line(known.status)):
        assert line.endswith("; noise from a known seed: not private")
    none = spent.model_copy(update={"budget": None, "releases": 0, "spent_by": None, "epsilon": 0.0})
    assert privacy.spent_line(none) == "privacy: ε 0 at δ = 1e-05, spent by 0 versions"
