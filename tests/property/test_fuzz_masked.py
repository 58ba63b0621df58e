"""Whatever two members of a masked run send, nothing escapes, and the others get their sum (protocol, section 10)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.fuzz.masked_harness import MaskedHarness

CHECKS = {
    "bad-run-keys", "no-run-keys", "wrong-plan", "bad-commitments", "wrong-closing", "wrong-signature", "wrong-size",
    "wrong-digest", "not-selected",
}  # fmt: skip
"""Reasons for which what is said in a masked round is refused."""


def noisy_rounds(harness: MaskedHarness, rounds: int, messages: int) -> None:
    for _ in range(rounds):
        if harness.over:
            return
        harness.begin_round()
        for go_on in (harness.send_updates, harness.sign, harness.open):
            seeds = harness.seeds()
            for _ in range(messages):
                kind, topic, payload, retain = harness.noise(seeds)
                harness.kinds[kind] += 1
                harness.take(topic, payload, retain=retain)
            go_on()


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 4))])
def test_a_masked_run_goes_on_among_noise(tmp_path: Path, seed: int) -> None:
    """Each width of integers once; `open` holds each model against the updates that were accepted."""
    harness = MaskedHarness(tmp_path / "run", seed)
    try:
        noisy_rounds(harness, rounds=3, messages=60)
        assert harness.rounds + harness.spoilt == 3
        harness.replay()
    finally:
        harness.close()


@pytest.mark.long
def test_the_noise_reaches_the_checks_of_masked_rounds(tmp_path: Path) -> None:
    refused: Counter[str] = Counter()
    rounds = spoilt = 0
    for seed in range(2, 20):
        harness = MaskedHarness(tmp_path / f"run-{seed}", seed)
        try:
            noisy_rounds(harness, rounds=6, messages=150)
            for reasons in harness.aggregator.rejections.total.values():
                refused.update(reasons)
            rounds, spoilt = rounds + harness.rounds, spoilt + harness.spoilt
        finally:
            harness.close()
        if set(refused) >= CHECKS and rounds and spoilt:
            return
    assert CHECKS - set(refused) == set()
    assert rounds
    assert spoilt
