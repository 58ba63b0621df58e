"""A run of three edges on a synthetic task, which always makes the same model, and ways to hold it up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from fl_aggregator.storage import checkpoint
from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.client import Client
from tests.support.received import Received

TASK = "synthetic-3000000"
"""12 MB: offered and sent in chunks, and large enough that a transfer can be caught in the middle."""


def settings(rounds: int) -> tuple[str, ...]:
    """Settings of a run that selects all three edges in every round, so that its model is always the same."""
    return (
        "--task", TASK, "--clients", "3", "--per-round", "3", "--rounds", str(rounds), "--quorum", "3",
        "--grace", "30", "--wait", "120", "--holdout", "0",
    )  # fmt: skip


def trainings(*edges: programs.Program) -> dict[int, int]:
    """How often each round was trained for, by all these processes together."""
    rounds = [int(n) for edge in edges for n in re.findall(r"round (\d+): trained in", edge.err)]
    return {number: rounds.count(number) for number in sorted(set(rounds))}


def model_sha256(directory: Path) -> str:
    return checkpoint.model_sha256(directory / "run" / "model.safetensors")


class Hold:
    """Edges whose workers are frozen before round ``number`` opens, so that its training never ends.

    They are frozen when ``clients`` have offered their updates of the round before: all those that the workers train
    for, or its round would never end. In round 0 that is whoever is asked for the first weights. The updates still
    have to be sent, folded and fetched.
    """

    def __init__(
        self, observer: Client, edges: Iterable[programs.Program], number: int, clients: Iterable[str] = ()
    ) -> None:
        if number > 1 and not clients:
            raise ValueError("several edges train in a round: name those that the workers train for")
        self._pids: list[int] = []
        observer.when_message(
            lambda: self._pids.extend(pid for edge in edges for pid in programs.workers(edge)),
            m.Selected,
            round=number - 1,
        )
        awaited = set(clients)

        def is_last(one: Received) -> bool:
            if not any(one.is_a(kind, round=number - 1) for kind in (m.Update, m.Offer)):
                return False
            awaited.discard(getattr(one.message, "client", ""))
            return not awaited

        observer.when(is_last, lambda: programs.freeze(*self._pids))
        self._held = observer.when_message(lambda: None, m.Selected, round=number)

    def wait(self) -> None:
        assert self._held.wait(160), "the round was not opened"

    def release(self) -> None:
        programs.thaw(*self._pids)
