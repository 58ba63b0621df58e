"""Answers to prediction requests in the forms that the programs show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def class_answer(labels: Sequence[str], probabilities: Iterable[float]) -> Mapping[str, Any]:
    """Returns the most probable label, and the probability of each, in the order of ``labels``."""
    by_label = dict(zip(labels, map(float, probabilities), strict=True))
    return {"label": max(by_label, key=by_label.__getitem__), "probabilities": by_label}


def number_answer(value: float, unit: str = "") -> Mapping[str, Any]:
    """Returns a number in ``unit``."""
    return {"value": float(value), "unit": unit}


def series_answer(values: Iterable[float], unit: str = "") -> Mapping[str, Any]:
    """Returns numbers in ``unit``, one for each step of a series."""
    return {"values": [float(value) for value in values], "unit": unit}
