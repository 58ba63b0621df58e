"""What a noisy mean says: without noise it is what the edges have, and noise moves it as much as it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fl_aggregator.configuration.survey import Survey
from fl_aggregator.privacy.plan import make_plan
from fl_aggregator.tools.survey.noisy import Estimate, NoisyResult, noisy_result
from fl_aggregator.tools.survey.noisy_text import noisy_lines
from fl_shared.protocol.messages import PrivacySpent
from fl_shared.survey.layout import Columns, NumberSums, Sums
from fl_shared.survey.proportions import Proportions, manifest_of, vector_of

SURVEY = Survey(ranges={"x": (0.0, 10.0)}, private=True)
COLUMNS = Columns(("a", "b"), ("x", "y"), {"c": ("u", "v"), "d": ()})
EDGES = 50


def mean_of_edges(rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    manifest, vectors = manifest_of(COLUMNS, SURVEY.terms), []
    for _ in range(EDGES):
        numbers = {name: NumberSums.of(rng.uniform(2, 6, 40), name, SURVEY.terms) for name in "xy"}
        categories = {"c": (30, 10, {"u": 10, "v": 20}), "d": (40, 0, {})}
        vectors.append(
            vector_of(Sums(1, 40, {"a": 10, "b": 30}, numbers, categories), manifest, SURVEY.terms)
        )
    return np.asarray(np.array(vectors, np.float64).mean(axis=0), np.float64)


def result_of(vector: np.ndarray[tuple[int], np.dtype[np.float64]], noise: float) -> NoisyResult:
    plan = make_plan(
        noise=noise,
        times=1,
        delta=1e-5,
        epsilon=None,
        apart=1,
        bands=1,
        releases=1,
        mechanism="central",
        clip=1.0,
    )
    spent = PrivacySpent(
        mechanism="central", against="wire", trusted="aggregator", clip=1.0, noise=noise, sensitivity=1.0,
        mu=1 / noise, epsilon=1.0, delta=1e-5, advantage=0.1, budget=None, releases=1, spent_by="0", insecure=False,
    )  # fmt: skip
    found = Proportions.read(vector.astype(np.float32), manifest_of(COLUMNS, SURVEY.terms), SURVEY.terms)
    return noisy_result(found, SURVEY, plan, spent, EDGES, "0" * 12, "own")


def test_without_noise_it_is_what_the_edges_have() -> None:
    found = result_of(mean_of_edges(np.random.default_rng(1)), 1e-9)
    assert found.labels is not None
    assert {name: round(one.value, 6) for name, one in found.labels.items()} == {"a": 0.25, "b": 0.75}
    of_c = found.categories["c"]
    assert [round(one.value, 6) for one in (of_c.missing, *of_c.values.values())] == [0.25, 0.25, 0.5]
    x = found.numbers["x"]
    assert x.mean is not None
    assert x.deviation is not None
    assert x.mean.value == pytest.approx(4, abs=0.1)
    assert x.deviation.value == pytest.approx(4 / math.sqrt(12), abs=0.05)
    for one in x.quantiles:
        assert one.low - 0.1 <= 2 + 4 * one.fraction <= one.high + 0.1
    assert {(one.low, one.high) for one in found.examples} == {(32, 63)}
    assert math.fsum(bar.share.value for bar in x.histogram) == pytest.approx(1)


def test_the_errors_are_the_deviations_of_many_noises() -> None:
    """Each figure of 400 releases of the same data spreads as much as its standard error says."""
    rng, noise = np.random.default_rng(2), 0.1
    exact = mean_of_edges(rng)
    found = [result_of(exact + rng.normal(0, noise / EDGES, len(exact)), noise) for _ in range(400)]

    def spread(values: list[float], errors: list[float]) -> None:
        assert np.std(values) == pytest.approx(np.median(errors), rel=0.15)

    figures: tuple[Callable[[Any], Estimate], ...] = (
        lambda one: one.labels["a"],
        lambda one: one.categories["c"].missing,
        lambda one: one.categories["c"].values["v"],
        lambda one: one.categories["d"].missing,
        lambda one: one.numbers["x"].missing,
        lambda one: one.numbers["y"].missing,
        lambda one: one.numbers["x"].mean,
        lambda one: one.numbers["x"].deviation,
        lambda one: one.numbers["x"].histogram[5].share,
    )
    for figure in figures:
        estimates = [figure(one) for one in found]
        spread([one.value for one in estimates], [one.error for one in estimates])


def test_what_noise_has_drowned_is_not_shown() -> None:
    found = result_of(mean_of_edges(np.random.default_rng(3)), 40.0)
    x = found.numbers["x"]
    assert (x.mean, x.deviation, x.quantiles, x.histogram) == (None, None, (), ())
    assert x.missing.error > 1


def test_the_lines_say_what_is_not_answered() -> None:
    text = "\n".join(noisy_lines(result_of(mean_of_edges(np.random.default_rng(1)), 0.5)))
    assert "survey of 50 edges with differential privacy; task own" in text
    assert (
        "not answered with noise: the number of all examples, figures of one edge, minima and maxima" in text
    )
    assert "mean, deviation and quantiles of y: they need a public range (--range y=LOW:HIGH)" in text
    assert "value of c" in text
