"""The settings of the runs of deterministic chaos (`chaos`)."""

from __future__ import annotations

import random
from typing import Any, Final

from fl_aggregator.configuration.settings import Settings
from tests.support.expected_models import STRATEGIES
from tests.support.virtual_federation import VALUES

ROUNDS: Final = 30


def settings_of(rng: random.Random, seed: int) -> Settings:
    """Draws the settings of a run: every second one is asynchronous."""
    strategy = rng.choice(STRATEGIES)
    fewest = 3 if strategy == "median" else 1
    clients = rng.randint(max(2, fewest), 5)
    per_round = rng.randint(fewest, clients)
    if seed % 2:
        mode: dict[str, Any] = {
            "mode": "async", "buffer": rng.randint(fewest, per_round),
            "concurrency": rng.choice((rng.randint(1, clients), clients)),
            "staleness": rng.choice(("constant", "polynomial:0.5", "hinge:10,1")), "max_staleness": rng.randint(0, 4),
        }  # fmt: skip
    else:
        quorum, over_select = rng.randint(fewest, per_round), rng.randint(0, clients - per_round)
        mode = {"per_round": per_round, "quorum": quorum, "over_select": over_select}
    return Settings(
        task=f"synthetic-{VALUES}", clients=clients, rounds=ROUNDS, holdout=0.0, strategy=strategy,
        deadline=rng.choice((20.0, 60.0)), grace=rng.choice((0.0, 5.0)), wait=rng.choice((30.0, 120.0)),
        evaluate_every=rng.choice((1, 5)), seed=seed, **mode,
    )  # fmt: skip
