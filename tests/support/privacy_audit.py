"""An audit of private runs in one run: it bounds from below what their noise lets through.

Steinke, Nasr, Jagielski 2023, "Privacy Auditing with One (1) Training Run", arXiv:2305.08846. Each of m canary edges is
in the run by a secret coin. Its updates are on a coordinate of its own, and longer than the clip. The auditor sees all
versions, scores each canary, and guesses "in" for the highest scores, and "out" for the lowest. What it gets right
bounds ε from below (theorem 5.2, appendix D). The updates take the way of all updates: check, clip, exact sum, noise,
mean. So a bound above the ε that the run claims shows a fault in any of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.aggregation.averaging import Averager
from fl_aggregator.aggregation.strategies.registry import load, resolved
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.privacy.correlated_noise import strategy_column
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_aggregator.round import effects as do
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.privacy import Releases, spent_by
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.run_directory import RunDirectory
from fl_aggregator.storage.update_content import SectionContent, UpdateContent
from fl_shared.protocol.messages import ModelReference
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from fl_shared.tensors.sections import DELTA

CONFIDENCE: Final = 0.95
CLIP: Final = 0.5
LENGTH: Final = 4.0
"""Of a canary's update: the clip must shorten it."""


@dataclass(frozen=True, slots=True)
class Audit:
    """``right`` of ``guesses`` about ``canaries`` edges. ``claimed``: ε as the run says it; ``bound``: it is more."""

    canaries: int
    guesses: int
    right: int
    claimed: float
    bound: float


def audit(
    directory: Path, *, canaries: int, guesses: int, rounds: int, noise: float, seed: int, **settings: Any
) -> Audit:
    """Audits a run of ``rounds`` versions in ``directory``. ``seed``: of the coins.

    The canaries take part as often as ``dp_apart`` allows: in turns, one group of them in each version.
    """
    usual = {
        "clients": canaries, "per_round": canaries, "rounds": rounds, "durability": "memory", "holdout": 0.0,
        "dp": "central", "dp_clip": str(CLIP), "dp_noise": noise, "dp_apart": "1",
    }  # fmt: skip
    found = resolved(Settings.model_validate({**usual, **settings}))
    plan = found.privacy
    assert plan is not None
    coins = np.random.default_rng(seed).random(canaries) < 0.5
    groups = [range(first, canaries, plan.apart) for first in range(plan.apart)]
    turns = [groups[number % plan.apart] for number in range(rounds)]
    releases = Releases()
    with_canaries = _Run(directory, found, canaries)
    for turn in turns:
        with_canaries.release([number for number in turn if coins[number]])
        releases = releases.with_release(tuple(map(str, turn)), plan.noise)
    with_canaries.close()
    score = scores(plan, np.array(with_canaries.sums), turns)
    order, half = np.argsort(score), guesses // 2
    right = int(coins[order[-half:]].sum() + (~coins[order[:half]]).sum())
    return Audit(
        canaries, 2 * half, right, spent_by(plan, releases).epsilon,
        lower_bound(canaries, 2 * half, right, plan.delta),
    )  # fmt: skip


class _Run:
    """The averager of a run, whose model has a value for each canary."""

    def __init__(self, directory: Path, settings: Settings, canaries: int) -> None:
        self.sums: list[NDArray[np.float64]] = []
        """What the auditor makes of each version: the noisy sum of the updates in it, in clips."""
        self._directory = RunDirectory(directory, settings.durability)
        self._averager = Averager(settings, load(settings), self._directory)
        self._manifest = Manifest(arrays=(ArraySpec(name="w", shape=(canaries,)),))
        self._averager.add(0, Model.of(self._manifest, np.zeros(canaries, "<f4")))

    def release(self, numbers: Sequence[int]) -> None:
        """Makes the next version of the updates of these canaries."""
        averager, round_number = self._averager, len(self.sums) + 1
        before = averager.newest
        base = ModelReference(version=round_number - 1, digest=before.digest)
        averager.begin_round(averager.expected(base, FLOAT32.name))
        updates = []
        for number in numbers:
            delta = np.zeros(len(before.weights), "<f4")
            delta[number] = LENGTH
            updates.append(self._fold(str(number), delta, base, round_number))
        made, _ = averager.average(
            do.Average(round=round_number, version=round_number, base=base, contributors=tuple(updates))
        )
        change = made.weights.astype(np.float64) - before.weights
        self.sums.append(change * len(numbers) / CLIP)

    def _fold(self, client: str, delta: Vector, base: ModelReference, round_number: int) -> UpdateMetadata:
        manifest, data = self._manifest.digest, memoryview(delta.tobytes())
        digest = content_digest([(DELTA, FLOAT32.name, manifest, data)])
        update = UpdateMetadata(
            client=client, session="session", round=round_number, base=base.digest, digest=digest,
            manifest=manifest, examples=1, steps=1, size=data.nbytes,
        )  # fmt: skip
        section = SectionContent(DELTA, FLOAT32.name, manifest, None, data)
        checked = self._averager.check(UpdateContent(digest, (section,)), update)
        self._averager.fold(update, checked, round_number)
        return update

    def close(self) -> None:
        self._directory.close()


def scores(
    plan: PrivacyPlan, sums: NDArray[np.float64], turns: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """The auditor's score of each canary, from the noisy sums, shape (versions, canaries).

    With the noise made independent again by C, it is the correlation with what the canary would have added.
    """
    total = np.zeros(sums.shape[1])
    column = strategy_column(plan.coefficients, len(sums))
    for t in range(len(sums)):
        weights = column[t::-1]
        present = np.zeros(sums.shape[1])
        for weight, turn in zip(weights, turns, strict=False):
            present[turn] += weight
        total += present * (weights @ sums[: t + 1])
    return total


def lower_bound(canaries: int, guesses: int, right: int, delta: float) -> float:
    """The largest ε, to 2^-20, that so many right guesses refute at `CONFIDENCE`; 0 if they refute none."""
    low, high = 0.0, 64.0
    if _p_value(canaries, guesses, right, 0.0, delta) >= 1 - CONFIDENCE:
        return 0.0
    while high - low > 2.0**-20:
        middle = (low + high) / 2
        refuted = _p_value(canaries, guesses, right, middle, delta) < 1 - CONFIDENCE
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The probability of so many right guesses, at most, if the run is (ε, δ)-private (appendix D, algorithm)."""
    chance = 1 / (1 + math.exp(-epsilon))
    probabilities = [_binomial(guesses, count, chance) for count in range(guesses + 1)]
    at_least = math.fsum(probabilities[right:])
    below = itertools.accumulate(reversed(probabilities[:right]))
    largest = max((total / i for i, total in enumerate(below, start=1)), default=0.0)
    return min(1.0, at_least + 2 * canaries * delta * largest)


def _binomial(trials: int, count: int, chance: float) -> float:
    """The probability of ``count`` successes."""
    if chance == 1.0:
        return float(count == trials)
    ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return math.exp(ways + count * math.log(chance) + (trials - count) * math.log1p(-chance))
