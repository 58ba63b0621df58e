"""What `topk` has not sent counts by commits only (protocol, 3.10 and 5.16): a kill of either side changes no bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.phases import Finished
from fl_edge.workers.training_result import ERROR
from tests.support.virtual_federation import VALUES, Federation

SETTINGS = Settings(
    task=f"synthetic-{VALUES}", clients=3, per_round=3, quorum=3, rounds=5, holdout=0.0, grace=60.0, seed=3,
    encoding="topk:0.25",
)  # fmt: skip
FIRST, PLACES = 2, 8
"""The first weights are there after a quarter of the events."""


def ended(directory: Path, killed: str = "", after: int = 0) -> tuple[bytes, dict[str, bytes], int]:
    """The weights, what each edge keeps, and how many events there were; one side is killed ``after`` some."""
    federation = Federation(directory, SETTINGS)
    try:
        federation.run(after)
        if killed == "edge":
            edge = federation.edges[str(after % SETTINGS.clients)]
            edge.kill()
            federation.world.after(3.0, edge.connect)
        if killed == "aggregator":
            federation.restart_aggregator()
        events = after
        while not federation.aggregator.state.ended:
            federation.run(1)
            events += 1
            assert events < 20_000
        ended_at = federation.world.now
        while federation.world.now < ended_at + 10 and federation.world.step():
            pass  # an edge that comes back hears of the last result
        assert isinstance(federation.aggregator.state.phase, Finished)
        outcomes = [(line["outcome"], len(line["participants"])) for line in federation.history()]
        assert outcomes == [("committed", 3)] * SETTINGS.rounds
        kept = {
            name: bytes(edge._own_state.current()[ERROR])
            for name, edge in federation.edges.items()
            if name != "evaluator"
        }
        return federation.newest_weights().tobytes(), kept, events
    finally:
        federation.close()


def test_undisturbed_it_differs_from_a_run_without_feedback(tmp_path: Path) -> None:
    weights, kept, _ = ended(tmp_path / "run")
    assert any(any(one) for one in kept.values())
    assert len(set(kept.values())) == 3
    assert weights


@pytest.mark.parametrize("killed", ["aggregator", "edge"])
def test_a_kill_at_any_time_changes_no_bit(tmp_path: Path, killed: str) -> None:
    weights, kept, events = ended(tmp_path / "undisturbed")
    for place in range(FIRST, PLACES):
        after = events * place // PLACES
        disturbed = ended(tmp_path / str(after), killed, after)
        assert disturbed[:2] == (weights, kept), after
