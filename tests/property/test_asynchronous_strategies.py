"""Asynchronous versions with each server optimizer and each kind of combination, against a few lines of float64.

Updates began from versions of different ages. The reference does not know how the aggregator adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_aggregator.aggregation.combining import Combiner, first_state
from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.configuration.settings import Settings
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector, magnitude
from tests.support.builders import update_metadata

Doubles = NDArray[np.float64]
Combine = Callable[[Doubles, Doubles], Doubles]
"""The change of updates, shape (n, parameters), already multiplied by s(τ), with their examples, shape (n,)."""
Optimize = Callable[[Doubles, Doubles, dict[str, Any]], Doubles]

BUFFER, VERSIONS = 9, 5
MANIFEST = Manifest(
    arrays=(
        ArraySpec(name="a", shape=(20, 3)),
        ArraySpec(name="b.running_var", shape=(7,), role="buffer"),
        ArraySpec(name="c", shape=(11,)),
    )
)
BUFFERS = np.r_[60:67]
PARAMETERS = np.setdiff1d(np.arange(MANIFEST.values), BUFFERS)
STALENESS: Mapping[str, Callable[[int], float]] = {
    "constant": lambda _: 1.0,
    "polynomial:0.5": lambda age: (1 + age) ** -0.5,
    "hinge:2,1": lambda age: 1 / (1 + 2 * max(0, age - 1)),
}


def mean(deltas: Doubles, examples: Doubles) -> Doubles:
    return np.asarray(examples @ deltas / examples.sum())


def equal_mean(deltas: Doubles, _examples: Doubles) -> Doubles:
    return np.asarray(deltas.mean(axis=0))


def median(deltas: Doubles, _examples: Doubles) -> Doubles:
    return np.asarray(np.median(deltas, axis=0))


def trimmed(deltas: Doubles, _examples: Doubles) -> Doubles:
    return np.asarray(np.sort(deltas, axis=0)[2:-2].mean(axis=0))  # ⌈0.2 × 9⌉ = 2


def nearest(deltas: Doubles, bad: int) -> NDArray[np.intp]:
    """The indices in the order of Krum's scores."""
    squares = ((deltas[:, None] - deltas[None]) ** 2).sum(axis=2)
    others = np.sort(squares, axis=1)[:, 1 : max(2, len(deltas) - bad - 1)]  # the first is itself
    return np.argsort(others.sum(axis=1), kind="stable")


def multi_krum(deltas: Doubles, _examples: Doubles) -> Doubles:
    return np.asarray(deltas[nearest(deltas, 2)[:7]].mean(axis=0))


def bulyan(deltas: Doubles, _examples: Doubles) -> Doubles:
    left, chosen = list(range(len(deltas))), list[int]()
    while len(chosen) < len(deltas) - 2:
        chosen.append(left.pop(int(nearest(deltas[left], 1)[0])))
    kept = deltas[chosen]
    order = np.argsort(np.abs(kept - np.median(kept, axis=0)), axis=0, kind="stable")
    return np.asarray(np.take_along_axis(kept, order[: len(kept) - 2], axis=0).mean(axis=0))


def geometric_median(deltas: Doubles, _examples: Doubles) -> Doubles:
    center: Doubles = np.asarray(deltas.mean(axis=0))
    for _ in range(10):
        weights = 1 / np.maximum(np.linalg.norm(deltas - center, axis=1), 1e-6)
        center = np.asarray(weights @ deltas / weights.sum())
    return center


def sgd(x: Doubles, change: Doubles, _state: dict[str, Any]) -> Doubles:
    return x + change


def with_momentum(x: Doubles, change: Doubles, state: dict[str, Any]) -> Doubles:
    state["m"] = 0.9 * state.get("m", 0.0) + change
    return np.asarray(x + 0.5 * state["m"])


def adaptive(lr: float, beta1: float, square: Callable[[Any, Doubles], Any]) -> Optimize:
    def optimize(x: Doubles, change: Doubles, state: dict[str, Any]) -> Doubles:
        state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * change
        state["v"] = square(state.get("v", 1e-6), change**2)
        return np.asarray(x + lr * state["m"] / (np.sqrt(state["v"]) + 1e-3))

    return optimize


COMBINATIONS: Mapping[str, Combine] = {
    "mean": mean,
    "mean:equal=true": equal_mean,
    "median": median,
    "trimmed-mean": trimmed,
    "krum:bad=2": multi_krum,
    "bulyan:bad=1": bulyan,
    "geometric-median": geometric_median,
}
OPTIMIZERS: Mapping[str, Optimize] = {
    "sgd": sgd,
    "sgd:lr=0.5,momentum=0.9": with_momentum,
    "adam": adaptive(0.01, 0.9, lambda v, square: 0.99 * v + 0.01 * square),
    "yogi": adaptive(0.01, 0.9, lambda v, square: v - 0.01 * square * np.sign(v - square)),
    "adagrad": adaptive(0.03, 0.0, lambda v, square: v + square),
}
PAIRS = [(combine, "adam") for combine in COMBINATIONS] + [
    (combine, optimize)
    for combine in ("mean", "median", "krum:bad=2")
    for optimize in OPTIMIZERS
    if optimize != "adam"
]


@pytest.mark.parametrize("staleness", STALENESS)
@pytest.mark.parametrize(("combine", "optimize"), PAIRS)
def test_a_version_of_a_buffer_is_what_the_papers_say(combine: str, optimize: str, staleness: str) -> None:
    """A stale change counts s(τ) times; of buffers, what edges ended with is averaged without that (protocol, 5.20)."""
    settings = Settings(
        mode="async", clients=20, concurrency=10, buffer=BUFFER, staleness=staleness, max_staleness=4,
        combine=combine, server_optimizer=optimize,
    )  # fmt: skip
    strategy = registry.load(settings)
    chance = np.random.default_rng(7)
    versions: list[Vector] = [chance.normal(size=MANIFEST.values).astype(np.float32)]
    versions[0][BUFFERS] = 1.0
    state, moments = first_state(strategy, MANIFEST.values), dict[str, Any]()
    x = versions[0].astype(np.float64)
    for number in range(1, VERSIONS + 1):
        ages = np.minimum(chance.integers(0, 5, BUFFER), number - 1)
        examples = chance.integers(1, 200, BUFFER).astype(np.float64)
        ends = chance.uniform(0.01, 0.5, (BUFFER, len(BUFFERS)))
        rows = chance.normal(0.05, 0.1, (BUFFER, MANIFEST.values)) * (1 + 0.1 * np.arange(BUFFER))[:, None]
        for k, age in enumerate(ages):
            rows[k, BUFFERS] = ends[k] - versions[number - 1 - age][BUFFERS]
        sent = rows.astype(np.float32)
        combiner = Combiner(strategy, MANIFEST, settings)
        for k in chance.permutation(BUFFER):
            update = update_metadata(
                client=str(k), examples=int(examples[k]), before={"loss": 1.0}, staleness=int(ages[k])
            )
            combiner.add(update, sent[k], magnitude(sent[k]))

        def read(client: str, sent: NDArray[np.float32] = sent) -> Vector:
            one: Vector = sent[int(client)]
            return one

        made, state = combiner.next_model(number, versions[-1], state, read, older=versions.__getitem__)
        factors = np.array([STALENESS[staleness](int(age)) for age in ages])
        change = COMBINATIONS[combine](rows[:, PARAMETERS] * factors[:, None], examples)
        x[PARAMETERS] = OPTIMIZERS[optimize](x[PARAMETERS], change, moments)
        assert np.abs(made[PARAMETERS] - x[PARAMETERS]).max() < 2e-5, f"version {number}"
        if combine.startswith("mean"):
            assert np.abs(made[BUFFERS] - mean(ends, examples)).max() < 2e-5
        assert (made[BUFFERS] > ends.min(axis=0) - 1e-5).all()
        assert (made[BUFFERS] < ends.max(axis=0) + 1e-5).all()
        versions.append(made)
