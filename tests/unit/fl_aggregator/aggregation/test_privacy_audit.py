"""Private runs are audited: what an attacker can tell is within the ε that they claim, and faults are found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.aggregation import combining, release_noise
from fl_shared.privacy.gaussian_noise import noise
from fl_shared.tensors.encodings.integers import Int64s
from tests.support.privacy_audit import Audit, audit, lower_bound

INDEPENDENT: dict[str, Any] = {"rounds": 1, "noise": 1.27, "dp_bands": "1"}
CORRELATED: dict[str, Any] = {"rounds": 4, "noise": 2.0, "dp_bands": "2", "dp_apart": "2"}
"""Each canary is in two of four versions."""
Patch = Callable[[pytest.MonkeyPatch], None]


CANARIES = pytest.mark.parametrize("canaries", [1024, pytest.param(4096, marks=pytest.mark.long)])


def audited(directory: Path, seed: int, canaries: int, settings: dict[str, Any]) -> Audit:
    return audit(directory, canaries=canaries, guesses=256, seed=seed, dp_insecure_seed=seed, **settings)


@CANARIES
@pytest.mark.parametrize(("settings", "seeds"), [(INDEPENDENT, 20), (CORRELATED, 4)])
def test_no_attacker_tells_more_than_is_claimed(
    tmp_path: Path, settings: dict[str, Any], seeds: int, canaries: int
) -> None:
    """The bound holds with a probability of 95 %, so that 3 of 20 may be above."""
    found = [audited(tmp_path / str(seed), seed, canaries, settings) for seed in range(seeds)]
    assert sum(one.bound > one.claimed for one in found) <= 3 * seeds // 20
    assert all(3.0 < one.claimed < 4.0 for one in found), "mutants are found at this ε"
    assert sum(one.bound > 0.3 for one in found) > seeds // 2, "an auditor that only guesses finds nothing"


def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_noise, "noise", lambda parts, start, count: 0 * noise(parts, start, count))


def a_quarter_of_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    def less(parts: Sequence[tuple[bytes, float]], start: int, count: int) -> Int64s:
        return noise([(key, deviation / 4) for key, deviation in parts], start, count)

    monkeypatch.setattr(release_noise, "noise", less)


def no_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combining, "clip_factor", lambda *_: 1.0)


@CANARIES
@pytest.mark.parametrize("settings", [INDEPENDENT, CORRELATED])
@pytest.mark.parametrize("patch", [no_noise, a_quarter_of_the_noise, no_clipping])
def test_a_run_that_claims_too_much_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch: Patch, settings: dict[str, Any], canaries: int
) -> None:
    patch(monkeypatch)
    found = audited(tmp_path / "run", 5, canaries, settings)
    assert found.bound > found.claimed, found


def test_the_bound_is_that_of_the_paper() -> None:
    """Without δ it is that of a binomial distribution."""
    surest = lower_bound(1000, 100, 100, 0.0)
    assert surest == pytest.approx(math.log(0.05**0.01 / (1 - 0.05**0.01)), abs=1e-5)
    assert lower_bound(1000, 100, 50, 0.0) == 0.0
    assert lower_bound(1000, 100, 58, 0.0) == 0.0, "a coin does that in 7 % of cases"
    assert lower_bound(1000, 100, 59, 0.0) > 0.0, "and that in 4 %"
    assert 0.0 < lower_bound(1000, 100, 100, 1e-5) < surest
    assert lower_bound(1000, 100, 100, 1.0) == 0.0
