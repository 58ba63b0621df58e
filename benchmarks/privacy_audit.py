"""Audits private runs: does an attacker with canary edges tell no more than the run claims? And are faults found?

    python benchmarks/privacy_audit.py [--canaries 4096] [--seeds 20] [--seeds-of-faults 3]

For each mechanism: ε as the run claims it, and what the audit in one run (`tests.support.privacy_audit`) shows that it
is at least, for each seed. Updates take the way of all updates through the aggregator, with noise from random keys.
Then the same with faults: without noise, with a quarter and a half of it, without clipping. One line of JSON.

``distributed``: each edge clips and adds its noise as an edge of a masked run does; as many as may collude add none. A
masked sum has 128 edges at most, so that this audit shows less.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from fl_aggregator.aggregation import combining, release_noise
from fl_shared.privacy.clipping import private_scale_bits
from fl_shared.privacy.distributed_noise import NoisyIntegers, noise_of_edge, noise_of_sum
from fl_shared.privacy.gaussian_mechanism import epsilon_of
from fl_shared.privacy.gaussian_noise import KEY, noise
from tests.support.privacy_audit import CLIP, LENGTH, Audit, audit, lower_bound

DELTA: Final = 1e-5
GUESSES: Final = 256
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "independent": {"rounds": 10, "noise": 4.0, "dp_bands": "1"},
    "correlated": {"rounds": 32, "noise": 3.5, "dp_bands": "4", "dp_apart": "8"},
}
"""With ``correlated``, each canary is in every eighth version, as often as it may."""
EDGES: Final = 128
LEAST: Final = 71
COLLUDERS: Final = 12
FAULTS: Final = {"none": 1.0, "half of the noise": 0.5, "a quarter of the noise": 0.25, "no noise": 0.0}


@contextmanager
def fault(name: str) -> Iterator[None]:
    """Breaks the aggregator."""
    if name == "no clipping":
        with mock.patch.object(combining, "clip_factor", return_value=1.0):
            yield
        return
    share = FAULTS[name]

    def less(parts: Any, start: int, count: int) -> Any:
        return np.rint(share * noise(parts, start, count)).astype(np.int64)

    with mock.patch.object(release_noise, "noise", less):
        yield


def audit_distributed(rounds: int, multiplier: float, seed: int, share: float) -> Audit:
    """Audits sums of `EDGES` edges that each add a part of the noise; the `COLLUDERS` add none."""
    places = private_scale_bits(CLIP, multiplier, EDGES)
    deviation = noise_of_edge(multiplier, LEAST, COLLUDERS) * CLIP * 2.0**places
    coins = np.random.default_rng(seed).random(EDGES) < 0.5
    total = np.zeros(EDGES, np.int64)
    for _ in range(rounds):
        for edge in range(EDGES):
            delta, own = np.zeros(EDGES, np.float32), np.empty(EDGES, np.int64)
            delta[edge] = LENGTH * coins[edge]
            own_share = share if edge >= COLLUDERS else 0.0
            NoisyIntegers(delta, CLIP, places, deviation, secrets.token_bytes(KEY))(0, own)
            clean = CLIP * 2.0**places * (delta > 0)
            total += np.rint(clean + own_share * (own - clean)).astype(np.int64)
    order, half = np.argsort(total), EDGES // 4
    right = int(coins[order[-half:]].sum() + (~coins[order[:half]]).sum())
    claimed = epsilon_of(math.sqrt(rounds) / noise_of_sum(multiplier, LEAST, COLLUDERS, EDGES), DELTA)
    return Audit(EDGES, 2 * half, right, claimed, lower_bound(EDGES, 2 * half, right, DELTA))


def audits(mechanism: str, broken: str, seeds: int, canaries: int) -> dict[str, Any]:
    """The audits of a mechanism with a fault, for each seed."""
    found: list[Audit] = []
    for seed in range(seeds):
        if mechanism == "distributed":
            found.append(audit_distributed(2, 1.5, seed, FAULTS[broken]))
            continue
        with tempfile.TemporaryDirectory() as scratch, fault(broken):
            found.append(
                audit(
                    Path(scratch) / "run",
                    canaries=canaries,
                    guesses=GUESSES,
                    seed=seed,
                    dp_delta=DELTA,
                    **SETTINGS[mechanism],
                )
            )
    above = sum(one.bound > one.claimed for one in found)
    print(f"{mechanism}, fault: {broken}: {above} of {seeds} above", file=sys.stderr, flush=True)
    return {
        "mechanism": mechanism, "fault": broken, "canaries": found[0].canaries, "guesses": found[0].guesses,
        "claimed": round(found[0].claimed, 3), "bounds": [round(one.bound, 2) for one in found], "above": above,
    }  # fmt: skip


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--canaries", type=int, default=4096)
    parser.add_argument("--seeds", type=int, default=20, help="of the coins: 0, 1 …")
    parser.add_argument("--seeds-of-faults", type=int, default=3, help="of the coins of broken runs")
    options = parser.parse_args()
    began = time.process_time()
    rows = [
        audits(
            mechanism,
            broken,
            options.seeds if broken == "none" else options.seeds_of_faults,
            options.canaries,
        )
        for mechanism in (*SETTINGS, "distributed")
        for broken in (*FAULTS, *(() if mechanism == "distributed" else ("no clipping",)))
    ]
    print(json.dumps({"audits": rows, "cpu_seconds": round(time.process_time() - began, 1)}))


if __name__ == "__main__":
    main()
