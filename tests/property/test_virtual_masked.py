"""Masked rounds in virtual time that lose 30 % of their edges in a phase: the versions are those of plain rounds."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import pytest

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.events import ModelCreated
from fl_aggregator.round.phases import Agreeing, Collecting, Finished, Unmasking
from tests.support.virtual_federation import VALUES, Federation

SEEDS = int(os.environ.get("FL_MASKED_SEEDS", "1"))
"""Runs; more find more."""
EDGES: Final = 10
LOST: Final = 3
LostIn = Literal["Collecting", "Agreeing", "Unmasking"]
PHASES: Final[tuple[LostIn, ...]] = ("Collecting", "Agreeing", "Unmasking")
ROUNDS: Final = len(PHASES)


def losses(seed: int) -> dict[int, tuple[LostIn, list[str]]]:
    """By round, the phase in which edges are lost, and which."""
    rng = random.Random(seed)
    names = [str(number) for number in range(EDGES)]
    phases = rng.sample(PHASES, ROUNDS)
    return {number: (phase, rng.sample(names, LOST)) for number, phase in enumerate(phases, 1)}


def averaging(done: JobDone) -> float:
    """Seconds that a job takes. Who was lost registers again while an average is made."""
    return 30.0 if isinstance(done.event, ModelCreated) else 0.0


@contextmanager
def federation(seed: int, *, masked: bool) -> Iterator[Federation]:
    with tempfile.TemporaryDirectory(prefix="fl-masked-") as directory:
        settings = Settings(
            task=f"synthetic-{VALUES}", clients=EDGES, per_round=EDGES, quorum=6, rounds=ROUNDS, holdout=0.0,
            deadline=60.0, seed=seed, masked=masked,
        )  # fmt: skip
        run = Federation(Path(directory) / "run", settings, job_seconds=averaging)
        try:
            yield run
        finally:
            run.close()


def versions(seed: int, *, masked: bool) -> list[tuple[str, list[str]]]:
    """The digest of each version, and the edges that have contributed.

    Edges die as soon as a round is in the phase in which it loses them, and are back when the round is over. Plain
    rounds lose those alone that do not train.
    """
    plan, dead = losses(seed), dict[str, int]()
    with federation(seed, masked=masked) as run:
        while not run.aggregator.state.ended:
            assert run.world.step(), "nothing happens any more"
            phase = run.aggregator.state.phase
            number = phase.round if isinstance(phase, Collecting | Agreeing | Unmasking) else None
            for name in [name for name, died_in in dead.items() if died_in != number]:
                del dead[name]
                run.edges[name].connect()
            lost_in, names = plan.get(number or 0, ("", []))
            if type(phase).__name__ == lost_in and number is not None and number not in dead.values():
                del plan[number]
                for name in names:
                    run.edges[name].kill()
                    dead[name] = number
        assert isinstance(run.aggregator.state.phase, Finished), run.aggregator.state.phase
        history = list(run.history())
    assert [line["outcome"] for line in history] == ["committed"] * ROUNDS, history
    return [(line["digest"], line["participants"]) for line in history]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_masked_rounds_that_lose_edges_make_the_versions_of_plain_ones(seed: int) -> None:
    masked = versions(seed, masked=True)
    assert masked == versions(seed, masked=False)
    trained = [phase for phase, _ in losses(seed).values()]
    assert [len(names) for _, names in masked] == [
        EDGES - LOST if phase == "Collecting" else EDGES for phase in trained
    ]
