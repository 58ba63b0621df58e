"""An asynchronous run over a real broker: one edge is slow, the aggregator is killed twice.

The model has the bits that follow from its journal.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fl_aggregator.round.events import UpdateMetadata
from fl_edge.training import synthetic_executor
from fl_edge.training.executor import edge_seed
from fl_edge.training.synthetic_executor import SyntheticExecutor
from fl_shared.tensors.manifest import Vector
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.buffered_averages import check_models
from tests.support.crashing_runs import Cluster, contributions

pytestmark = [pytest.mark.broker, pytest.mark.long]

VALUES = 50
ROUNDS = 12
RUN = (
    "--task", f"synthetic-{VALUES}", "--mode", "async", "--clients", "5", "--concurrency", "4", "--buffer", "2",
    "--rounds", str(ROUNDS), "--grace", "0", "--wait", "60", "--deadline", "60", "--max-staleness", "4",
)  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "broker").mkdir()
    broker = Mosquitto(tmp_path / "broker")
    with programs.edges(tmp_path / "edges", broker.url, "0-3") as fleet:
        yield Cluster(broker, fleet, tmp_path, RUN)
    broker.stop()


def delta(update: UpdateMetadata) -> Vector:
    """The update of a synthetic edge follows from its ticket."""
    values = np.empty(VALUES, np.float32)
    synthetic_executor._fill(values, edge_seed(0, update.round, update.client))
    return values


def test_killed_twice_with_a_slow_edge_it_has_the_bits_of_its_journal(cluster: Cluster) -> None:
    with programs.edges(cluster.directory / "slow", cluster.broker.url, "4") as slow:
        code, note = cluster.crash("run", 70)
        assert code == -signal.SIGKILL, note
        programs.freeze(slow.pid)
        code, note = cluster.crash("run", 45, again=True)
        assert code == -signal.SIGKILL, note
        programs.thaw(slow.pid)
        with cluster.resume("run", "--broker", cluster.broker.url) as again:
            assert again.wait(90) == 0, again.output
    directory = cluster.directory / "run"
    assert sum(len(clients) for clients in contributions(directory).values()) >= 2 * ROUNDS
    assert [line["version"] for line in programs.history(directory)] == list(range(1, ROUNDS + 1))
    assert not list((directory / "run" / "spool").iterdir()), "the updates of committed versions are deleted"
    weights = np.empty(VALUES, np.float32)
    manifest = SyntheticExecutor(VALUES).initial_weights(0, lambda _: weights)
    averages = check_models(directory / "run", manifest, weights, delta)
    assert max(update.staleness for average in averages for update in average.contributors) > 0
