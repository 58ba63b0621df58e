"""Declarations of metrics: which are possible, and what they mean."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fl_shared.protocol import messages as m
from fl_shared.system.text import number_text, quantity_text
from tests.support.builders import ACCURACY, MAE

DECLARED: TypeAdapter[tuple[m.MetricDeclaration, ...]] = TypeAdapter(m.DeclaredMetrics)


@pytest.mark.parametrize(
    "name", ["", " auc", "a\nb", "\x1b[31m", "x" * 58, "µ" * 29, "loss", "version", "before_auc", "train_auc"]
)
def test_a_name_that_cannot_be_used(name: str) -> None:
    with pytest.raises(ValidationError):
        DECLARED.validate_python(({"name": name},))


@pytest.mark.parametrize(
    "member",
    [{"unit": "x" * 17}, {"unit": "\n"}, {"minimum": float("nan")}, {"maximum": float("inf")},
     {"minimum": 1.0, "maximum": 1.0}, {"higher_is_better": "yes"}],
)  # fmt: skip
def test_a_member_that_cannot_be_used(member: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        m.MetricDeclaration(name="auc", **member)


def test_names_differ_and_are_not_too_many() -> None:
    with pytest.raises(ValidationError, match="names that differ"):
        DECLARED.validate_python((MAE, MAE))
    many = tuple(m.MetricDeclaration(name=f"m{number}") for number in range(m.MAX_DECLARED_METRICS + 1))
    assert DECLARED.validate_python(many[1:]) == many[1:]
    with pytest.raises(ValidationError):
        DECLARED.validate_python(many)


def test_the_direction_and_the_range() -> None:
    assert ACCURACY.is_better(0.9, 0.8)
    assert MAE.is_better(1.0, 2.0)
    assert not any(metric.is_better(1.0, 1.0) for metric in (ACCURACY, MAE)), "equal is not better"
    assert [ACCURACY.contains(value) for value in (-0.1, 0.0, 1.0, 1.1)] == [False, True, True, False]
    assert m.primary_of((MAE, ACCURACY)) == MAE
    assert m.primary_of(()) == m.LOSS
    assert m.metrics_text((MAE,)) == "mae (kWh, lower is better, at least 0)"
    assert m.metrics_text(()) == "none"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.97123, "0.9712"), (0.0, "0.0000"), (-9.5, "-9.5000"), (21.853, "21.85"), (21853.4, "21853"), (1.5e9, "1.5e+09"),
     (2e-5, "2e-05"), (None, "–")],
)  # fmt: skip
def test_numbers_for_people(value: float | None, text: str) -> None:
    assert number_text(value) == text
    assert quantity_text(value, "%") == text, "a fraction stays one"
    assert quantity_text(value, "kWh") == (text if value is None else f"{text} kWh")
