"""The numbers in docs/differential-privacy.md are those of the program."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fl_aggregator.configuration.privacy import plan_of
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.privacy.correlated_noise import prefix_error
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_shared.privacy.gaussian_mechanism import advantage_of, mu_of

PAGE = (Path(__file__).parents[4] / "docs" / "differential-privacy.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.partition("## An example: 1,000 gateways\n")[2].partition("\n## ")[0]
TEXT = " ".join(EXAMPLE.split())
"""The same in one line."""


def plan(clients: float, per_round: float, rounds: float, epsilon: float, **settings: str) -> PrivacyPlan:
    found = plan_of(
        Settings.model_validate(
            {
                "clients": clients, "per_round": per_round, "rounds": rounds, "dp": "central", "dp_clip": "0.5",
                "dp_epsilon": epsilon, **settings,
            }
        )
    )  # fmt: skip
    assert found is not None
    return found


def rows() -> list[list[float]]:
    lines = [line for line in EXAMPLE.splitlines() if line.startswith("| ")]
    return [[float(cell.replace(",", "")) for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize("row", rows(), ids=str)
def test_the_table_of_the_example_is_computed(row: list[float]) -> None:
    clients, per_round, rounds, epsilon = row[:4]
    independent, correlated = (
        plan(clients, per_round, rounds, epsilon, dp_bands="1"),
        plan(clients, per_round, rounds, epsilon),
    )
    like = (
        correlated.noise
        * prefix_error(correlated.coefficients, int(rounds))
        / prefix_error((1.0,), int(rounds))
    )
    ratios = [independent.noise * math.sqrt(values) / per_round for values in (650, 7850, 53002)]
    assert row[4:] == [round(value, 2) for value in (independent.noise, correlated.noise, like, *ratios)]


def test_the_text_of_the_example_is_computed() -> None:
    assert len(rows()) == 6
    found = plan(1000, 100, 100, 2.0)
    assert f"`--dp-apart` is {found.apart}:" in TEXT
    assert f"at most {found.times} of the 100 versions" in TEXT
    assert found.delta == 1e-5
    advantage = advantage_of(mu_of(2.0, 1e-5))
    assert f"is {advantage:.2f} at most, so that it is right in {50 * (1 + advantage):.0f} %" in TEXT
    assert f"needs z = {plan(1000, 100, 100, 2.0, dp_bands='1').noise:.2f} for that" in TEXT
    assert f"needs z = {found.noise:.2f} for a single version" in TEXT
    like = found.noise * prefix_error(found.coefficients, 100) / prefix_error((1.0,), 100)
    assert f"independent noise with z = {like:.2f}" in TEXT
