"""Every strategy: what it computes, and that neither order nor blocks change a bit.

The references are a few lines of float64 each, written from the papers, over three rounds with buffers in the model.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_aggregator.aggregation.combining import Combiner, first_state
from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.strategies.coordinates import TrimmedMean
from fl_aggregator.aggregation.strategies.presets import PRESETS
from fl_aggregator.aggregation.validation import CheckedSection
from fl_aggregator.configuration.settings import Settings
from fl_shared.tensors import spans
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from tests.support.builders import update_metadata

Doubles = NDArray[np.float64]

CLIENTS = tuple(f"c{i}" for i in range(11))
EXAMPLES = np.array([10, 200, 35, 1, 80, 80, 9, 1000, 50, 60, 70], np.float64)
STEPS = np.array([1, 20, 3, 1, 8, 8, 1, 100, 5, 6, 7])
LOSSES = np.array([0.1, 2.0, 0.5, 1e-12, 7.0, 0.3, 200.0, 1.0, 0.9, 0.8, 0.7])
MANIFEST = Manifest(
    arrays=(
        ArraySpec(name="a", shape=(40, 7)),
        ArraySpec(name="b", shape=(30,), role="buffer"),
        ArraySpec(name="c", shape=(11,)),
        ArraySpec(name="d", shape=(3,), role="buffer"),
    )
)
BUFFERS = np.r_[280:310, 321:324]
PARAMETERS = np.setdiff1d(np.arange(MANIFEST.values), BUFFERS)
ROUNDS = 3


@dataclass
class Case:
    """A strategy, and its reference: `combine` of deltas, shape (n, values), and an optimizer on x, with state."""

    settings: dict[str, Any]
    combine: Callable[[Doubles, Doubles], tuple[Doubles, Doubles]]
    """Given deltas and the last change, the change of all values; then its buffers are used, and its parameters."""
    optimize: Callable[[Doubles, Doubles, dict[str, Any]], Doubles]


def mean(deltas: Doubles, _last: Doubles) -> tuple[Doubles, Doubles]:
    change = EXAMPLES @ deltas / EXAMPLES.sum()
    return change, change


def equal_mean(deltas: Doubles, _last: Doubles) -> tuple[Doubles, Doubles]:
    return deltas.mean(axis=0), EXAMPLES @ deltas / EXAMPLES.sum()


def normalized(deltas: Doubles, _last: Doubles) -> tuple[Doubles, Doubles]:
    rho, p = 0.9, EXAMPLES / EXAMPLES.sum()
    a = np.array([sum((1 - rho ** (t - j)) / (1 - rho) for j in range(t)) for t in STEPS])  # ‖a‖₁, added up
    return (p @ a) * ((p / a) @ deltas), p @ deltas


def fair(q: float) -> Callable[[Doubles, Doubles], tuple[Doubles, Doubles]]:
    def combine(deltas: Doubles, _last: Doubles) -> tuple[Doubles, Doubles]:
        big_l = 1 / 0.5
        f = np.clip(LOSSES, 0.01, 100.0)
        steps = big_l * deltas
        lengths = np.linalg.norm(steps[:, PARAMETERS], axis=1)
        h = q * f ** (q - 1) * lengths**2 + big_l * f**q
        return (f**q) @ steps / h.sum(), EXAMPLES @ deltas / EXAMPLES.sum()

    return combine


def median(deltas: Doubles, _last: Doubles) -> tuple[Doubles, Doubles]:
    change = np.median(deltas, axis=0)
    return change, change


def trimmed(deltas: Doubles, _last: Doubles) -> tuple[Doubles, Doubles]:
    cut = int(np.ceil(0.2 * len(deltas)))
    change = np.sort(deltas, axis=0)[cut : len(deltas) - cut].mean(axis=0)
    return change, change


def krum_order(deltas: Doubles, bad: int) -> list[int]:
    points = deltas[:, PARAMETERS]
    scores = []
    for i, one in enumerate(points):
        far = sorted(np.sum((one - other) ** 2) for j, other in enumerate(points) if j != i)
        scores.append(sum(far[: max(1, len(points) - bad - 2)]))
    return [int(i) for i in np.argsort(scores, kind="stable")]


def multi_krum(keep: int | None) -> Callable[[Doubles, Doubles], tuple[Doubles, Doubles]]:
    def combine(deltas: Doubles, _last: Doubles) -> tuple[Doubles, Doubles]:
        change = deltas[krum_order(deltas, 2)[: keep or len(deltas) - 2]].mean(axis=0)
        return change, change

    return combine


def bulyan(bad: int) -> Callable[[Doubles, Doubles], tuple[Doubles, Doubles]]:
    def combine(deltas: Doubles, _last: Doubles) -> tuple[Doubles, Doubles]:
        left = list(range(len(deltas)))
        chosen: list[int] = []
        while len(chosen) < len(deltas) - 2 * bad:
            chosen.append(left.pop(krum_order(deltas[left], bad)[0]))
        kept = deltas[chosen]
        middle = np.median(kept, axis=0)
        near = np.argsort(np.abs(kept - middle), axis=0, kind="stable")[: len(kept) - 2 * bad]
        change: Doubles = np.take_along_axis(kept, near, axis=0).mean(axis=0)
        return change, change

    return combine


def geometric_median(nu: float) -> Callable[[Doubles, Doubles], tuple[Doubles, Doubles]]:
    def combine(deltas: Doubles, _last: Doubles) -> tuple[Doubles, Doubles]:
        weights = np.full(len(deltas), 1 / len(deltas))
        for _ in range(10):
            center = weights @ deltas
            weights = 1 / np.maximum(np.linalg.norm((deltas - center)[:, PARAMETERS], axis=1), nu)
            weights /= weights.sum()
        return weights @ deltas, weights @ deltas

    return combine


def centered_clip(radius: float) -> Callable[[Doubles, Doubles], tuple[Doubles, Doubles]]:
    def combine(deltas: Doubles, last: Doubles) -> tuple[Doubles, Doubles]:
        center, weights = last.copy(), np.zeros(len(deltas))
        for _ in range(3):
            far = np.linalg.norm((deltas - center)[:, PARAMETERS], axis=1)
            pulls = np.minimum(1, radius / far) / len(deltas)
            center = center + pulls @ (deltas - center)
            weights = weights * (1 - pulls.sum()) + pulls
        of_buffers: Doubles = weights @ deltas / weights.sum()
        return center, of_buffers

    return combine


def plain(x: Doubles, change: Doubles, _state: dict[str, Any]) -> Doubles:
    return x + change


def momentum(x: Doubles, change: Doubles, state: dict[str, Any]) -> Doubles:
    moment: Doubles = 0.9 * state.get("m", 0.0) + change
    state["m"] = moment
    after: Doubles = x + 0.1 * moment
    return after


def adaptive(
    lr: float, beta1: float, square: Callable[[Any, Doubles], Any]
) -> Callable[[Doubles, Doubles, dict[str, Any]], Doubles]:
    def optimize(x: Doubles, change: Doubles, state: dict[str, Any]) -> Doubles:
        state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * change
        state["v"] = square(state.get("v", 1e-6), change**2)
        after: Doubles = x + lr * state["m"] / (np.sqrt(state["v"]) + 1e-3)
        return after

    return optimize


def extrapolation(x: Doubles, change: Doubles, state: dict[str, Any]) -> Doubles:
    squares = np.sum(state["deltas"][:, PARAMETERS] ** 2)
    eta = squares / (2 * len(CLIENTS) * (np.sum(change[PARAMETERS] ** 2) + 1e-3))
    after: Doubles = x + max(1.0, eta) * change
    return after


CASES = {
    "fedavg": Case({}, mean, plain),
    "fedavgm": Case({}, mean, momentum),
    "fedadam": Case({}, mean, adaptive(0.01, 0.9, lambda v, s: 0.99 * v + 0.01 * s)),
    "fedyogi": Case({}, mean, adaptive(0.01, 0.9, lambda v, s: v - 0.01 * s * np.sign(v - s))),
    "fedadagrad": Case({}, mean, adaptive(0.03, 0.0, lambda v, s: v + s)),
    "fedexp": Case({}, equal_mean, extrapolation),
    "fednova": Case({"momentum": 0.9, "epochs": 1}, normalized, plain),
    "q-fedavg": Case({"lr": 0.5}, fair(0.1), plain),
    "fedprox": Case({}, mean, plain),
    "scaffold": Case({}, mean, plain),
    "median": Case({}, median, plain),
    "trimmed-mean": Case({}, trimmed, plain),
    "krum": Case({"strategy": "krum:bad=2"}, multi_krum(1), plain),
    "multi-krum": Case({"strategy": "multi-krum:bad=2"}, multi_krum(None), plain),
    "bulyan": Case({"strategy": "bulyan:bad=2"}, bulyan(2), plain),
    "geometric-median": Case({}, geometric_median(1e-6), plain),
    "centered-clip": Case({}, centered_clip(1.0), plain),
}


def agreeing_deltas(number: int) -> Doubles:
    """Updates that differ by much less than their lengths."""
    random = np.random.default_rng(number)
    common = random.normal(0.0, 0.1, MANIFEST.values)
    return (
        (common + random.normal(0.0, 0.01, (len(CLIENTS), MANIFEST.values)))
        .astype(np.float32)
        .astype(np.float64)
    )


TEN = {"CLIENTS": CLIENTS[:10], "EXAMPLES": EXAMPLES[:10], "STEPS": STEPS[:10], "LOSSES": LOSSES[:10]}
ALIKE = {"deltas_of_round": agreeing_deltas}
CLOSE_LOSSES = {"LOSSES": np.linspace(0.2, 2.0, len(CLIENTS))}
OTHERS: list[tuple[Case, dict[str, Any]]] = [
    (Case({"strategy": "q-fedavg:q=1", "lr": 0.5}, fair(1.0), plain), CLOSE_LOSSES),
    (Case({"strategy": "fedexp"}, equal_mean, extrapolation), ALIKE),
    (Case({"strategy": "centered-clip:radius=3"}, centered_clip(3.0), plain), {}),
    (Case({"strategy": "geometric-median:smoothing=2.5"}, geometric_median(2.5), plain), {}),
    (Case({"strategy": "median"}, median, plain), TEN),
    (Case({"strategy": "trimmed-mean"}, trimmed, plain), TEN),
    (Case({"strategy": "bulyan:bad=1"}, bulyan(1), plain), TEN),
]
"""Cases of what is rare in those above, with other updates: losses that all count, factors at their bound, n even."""


def settings_of(name: str, **more: Any) -> Settings:
    usual = {"clients": 11, "per_round": 11, "quorum": 11, "strategy": name}
    return Settings(**{**usual, **CASES[name].settings, **more})


def deltas_of_round(number: int) -> Doubles:
    random = np.random.default_rng(number)
    deltas = random.normal(0.05, 0.1, (len(CLIENTS), MANIFEST.values))
    deltas *= 1 + 0.1 * np.arange(len(CLIENTS))[:, None]  # so that no two distances are about equal
    deltas[3] *= -8  # one that is unlike the others
    deltas[:, 5] = 0.0
    return deltas.astype(np.float32).astype(np.float64)


def controls_of_round(number: int) -> Doubles:
    """What updates contain besides the change, with SCAFFOLD."""
    return np.random.default_rng(100 + number).normal(size=(len(CLIENTS), MANIFEST.values)).astype(np.float32)


def run(settings: Settings, order: Sequence[int] | range) -> tuple[list[Vector], dict[str, Vector]]:
    """Returns the weights after each round, and the state after the last, when updates arrive in this order."""
    strategy = registry.load(settings)
    weights = np.random.default_rng(9).normal(size=MANIFEST.values).astype(np.float32)
    state, versions = first_state(strategy, MANIFEST.values), [weights]
    for number in range(1, ROUNDS + 1):
        rows, controls = deltas_of_round(number).astype(np.float32), controls_of_round(number)
        combiner = Combiner(strategy, MANIFEST, settings)
        for k in order:
            update = update_metadata(
                client=CLIENTS[k],
                examples=int(EXAMPLES[k]),
                steps=int(STEPS[k]),
                before={"loss": float(LOSSES[k])},
            )
            control = CheckedSection(controls[k], float(np.abs(controls[k]).max()))
            combiner.add(update, rows[k], float(np.abs(rows[k]).max()), {"control": control})
        heard = (0 if number == 1 else int(EXAMPLES.sum()), int(EXAMPLES.sum()))
        before = weights.copy(), {name: vector.copy() for name, vector in state.items()}

        def read(client: str, rows: Vector = rows) -> Vector:
            one: Vector = rows[CLIENTS.index(client)]
            return one

        made, next_state = combiner.next_model(number, weights, state, read, heard)
        assert np.array_equal(weights, before[0])
        assert all(np.array_equal(state[name], before[1][name]) for name in state), (
            "they are not changed in place"
        )
        weights, state = made, next_state
        versions.append(weights)
    return versions, state


def test_every_preset_has_a_reference() -> None:
    assert CASES.keys() == PRESETS.keys()


def check(case: Case, settings: Settings) -> None:
    versions, _ = run(settings, range(len(CLIENTS)))
    state: dict[str, Any] = {}
    last = np.zeros(MANIFEST.values)
    x = versions[0].astype(np.float64)
    for number in range(1, ROUNDS + 1):
        deltas = deltas_of_round(number)
        state["deltas"] = deltas
        change, of_buffers = case.combine(deltas, last)
        after = case.optimize(x, change, state)
        after[BUFFERS] = x[BUFFERS] + of_buffers[BUFFERS]
        x, last = after, change
        assert np.abs(versions[number] - x).max() < 2e-5, f"round {number}"


@pytest.mark.parametrize("name", CASES)
def test_a_strategy_computes_what_its_paper_says(name: str) -> None:
    check(CASES[name], settings_of(name))


@pytest.mark.parametrize(("case", "updates"), OTHERS, ids=[case.settings["strategy"] for case, _ in OTHERS])
def test_a_strategy_computes_it_for_other_updates(
    case: Case, updates: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in updates.items():
        monkeypatch.setattr(sys.modules[__name__], name, value)
    check(case, Settings(**{"clients": 11, "per_round": 11, "quorum": len(CLIENTS), **case.settings}))


def test_the_control_of_scaffold_adds_up_what_edges_return() -> None:
    _, state = run(settings_of("scaffold"), range(len(CLIENTS)))
    expected = sum(EXAMPLES @ controls_of_round(n) / EXAMPLES.sum() for n in range(1, ROUNDS + 1))
    assert np.abs(state["control"] - expected)[PARAMETERS].max() < 2e-6
    assert not state["control"][BUFFERS].any()


@pytest.mark.parametrize("name", CASES)
def test_no_order_of_arrival_changes_a_bit(name: str) -> None:
    (*_, one), state = run(settings_of(name), range(len(CLIENTS)))
    for seed in range(3):
        (*_, other), other_state = run(
            settings_of(name), np.random.default_rng(seed).permutation(len(CLIENTS)).tolist()
        )
        assert other.tobytes() == one.tobytes()
        assert {n: v.tobytes() for n, v in other_state.items()} == {n: v.tobytes() for n, v in state.items()}


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "fedexp", "median", "centered-clip", "bulyan"])
def test_no_size_of_blocks_changes_a_bit_of_what_is_by_coordinate(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions, _ = run(settings_of(name), range(len(CLIENTS)))
    monkeypatch.setattr(spans, "BLOCK", 64)
    others, _ = run(settings_of(name), range(len(CLIENTS)))
    # Norms are added in lanes of a block, so that only their last bits may differ.
    assert np.abs(versions[-1] - others[-1]).max() <= (1e-6 if name == "fedexp" else 0.0)


@pytest.mark.parametrize(("name", "first"), list(itertools.product(CASES, (0.0, 4.0))))
def test_averaged_variances_stay_variances(name: str, first: float) -> None:
    """A buffer that is never negative at any edge is not negative in the mean, whatever the strategy."""
    settings = settings_of(name)
    strategy = registry.load(settings)
    base = np.full(MANIFEST.values, first, np.float32)
    rows = np.random.default_rng(4).gamma(1.0, 2.0, (len(CLIENTS), MANIFEST.values)).astype(np.float32) - base
    combiner = Combiner(strategy, MANIFEST, settings)
    for k, client in enumerate(CLIENTS):
        update = update_metadata(client=client, examples=int(EXAMPLES[k]), before={"loss": 1.0})
        one = CheckedSection(rows[k], float(np.abs(rows[k]).max()))
        combiner.add(update, one.values, one.magnitude, {"control": one})
    made, _ = combiner.next_model(
        1, base, first_state(strategy, MANIFEST.values), lambda c: rows[CLIENTS.index(c)], (0, 1)
    )
    assert (made[BUFFERS] >= 0).all()


@pytest.mark.parametrize("name", [name for name in CASES if name != "scaffold"])
def test_variances_stay_variances_whatever_version_updates_began_from(name: str) -> None:
    """Protocol, 5.20. With their changes of old versions, variances that fall from 1 to 0.05 end below 0."""
    settings = settings_of(name)
    strategy = registry.load(settings)
    random = np.random.default_rng(5)
    versions = [np.full(MANIFEST.values, first, np.float32) for first in (1.0, 0.3, 0.05)]
    came = random.uniform(0.01, 0.09, (len(CLIENTS), MANIFEST.values)).astype(np.float32)
    rows = np.array([came[k] - versions[2 - k % 3] for k in range(len(CLIENTS))])
    combiner = Combiner(strategy, MANIFEST, settings)
    for k, client in enumerate(CLIENTS):
        update = update_metadata(
            client=client, examples=int(EXAMPLES[k]), before={"loss": 1.0}, staleness=k % 3
        )
        combiner.add(update, rows[k], float(np.abs(rows[k]).max()))
    made, _ = combiner.next_model(
        3,
        versions[2],
        first_state(strategy, MANIFEST.values),
        lambda c: rows[CLIENTS.index(c)],
        older=lambda number: versions[number],
    )
    assert (made[BUFFERS] > came[:, BUFFERS].min(axis=0) - 1e-6).all()
    assert (made[BUFFERS] < came[:, BUFFERS].max(axis=0) + 1e-6).all()
    if name == "median":
        assert np.abs(made - np.median(came, axis=0))[BUFFERS].max() < 1e-6
    if not strategy.needs_all_updates:
        assert np.abs(made - EXAMPLES @ came / EXAMPLES.sum())[BUFFERS].max() < 1e-6


@pytest.mark.parametrize("combine", ["mean", "krum:bad=2", "median", "bulyan:bad=2"])
def test_clipping_scales_parameters_alone(combine: str) -> None:
    """With a radius that all updates exceed, all parameters of an update are scaled to it before the combination."""
    settings = settings_of("fedavg", combine=combine, transform=("clip:norm=0.5",))
    clipped, _ = run(settings, range(len(CLIENTS)))
    free, _ = run(settings_of("fedavg", combine=combine), range(len(CLIENTS)))
    if combine in ("mean", "median"):  # others choose updates by their lengths
        assert np.array_equal(clipped[1][BUFFERS], free[1][BUFFERS])
    if combine == "mean":
        deltas = deltas_of_round(1)
        lengths = np.linalg.norm(deltas[:, PARAMETERS], axis=1)
        scaled = deltas * np.minimum(1, 0.5 / lengths)[:, None]
        expected = clipped[0] + EXAMPLES @ scaled / EXAMPLES.sum()
        assert np.abs(clipped[1] - expected)[PARAMETERS].max() < 2e-5
    assert np.linalg.norm((clipped[1] - clipped[0])[PARAMETERS]) <= 0.5 * 1.0001


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fednova_with_equal_steps_is_fedavg(momentum: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "STEPS", np.full(len(CLIENTS), 7))
    (_, found, *_), _ = run(settings_of("fednova", momentum=momentum), range(len(CLIENTS)))
    (_, expected, *_), _ = run(settings_of("fedavg"), range(len(CLIENTS)))
    assert (np.abs(found - expected) <= np.spacing(np.abs(expected))).all(), (
        "at most one unit in the last place"
    )


def test_the_trimmed_mean_cuts_what_the_written_beta_says() -> None:
    for percent in range(1, 50):
        part = TrimmedMean(beta=float(f"0.{percent:02}"))
        for count in range(1, 401):
            assert part.cut_of(count) == min(-(-percent * count // 100), (count - 1) // 2), (percent, count)
