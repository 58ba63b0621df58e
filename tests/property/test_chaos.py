"""Deterministic chaos (`tests.support.chaos`): whatever fails in a run of thirty rounds, the promises hold.

It is about all that does not need a broker: the machines, their messages, the journal, the spool, the files. Of each
promise about a broker there is a test over a real one (docs/reliability.md).
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.support import chaos

SEEDS = 20
MANY_SEEDS = 2_000


DAILY = (2, 3)
"""One run in rounds and an asynchronous one, which both compact their journals."""


@pytest.mark.parametrize("seed", DAILY)
def test_whatever_fails_the_promises_hold(seed: int) -> None:
    chaos.run_seed(seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, SEEDS, 5))
def test_whatever_fails_with_some_seeds(first: int) -> None:
    for seed in range(first, first + 5):
        chaos.run_seed(seed)


def test_a_seed_says_all_that_happens() -> None:
    first: list[str] = []
    second: list[str] = []
    assert chaos.run_seed(1, first.append) == chaos.run_seed(1, second.append)
    assert first == second
    assert any("is killed" in line for line in first)


def test_a_violation_comes_with_the_command_that_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "PATIENCE", 5.0)
    with pytest.raises(AssertionError, match=r"does not end.*python -m tests\.support\.chaos 7$"):
        chaos.run_seed(7)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_whatever_fails_with_many_seeds() -> None:
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        digests = list(pool.map(chaos.run_seed, range(SEEDS, MANY_SEEDS), chunksize=10))
    assert len(set(digests)) == len(digests), "every seed has its own updates"
