"""An asynchronous run over a real broker: one edge is slow, the aggregator is killed twice.

The model has the bits that follow from its journal.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.server.resume import replay
from fl_aggregator.staleness import parse_staleness
from fl_aggregator.storage.checkpoint import Checkpoints, Model
from fl_aggregator.storage.run_directory import RunRecord, read_run
from fl_edge.training import synthetic_executor
from fl_edge.training.executor import edge_seed
from fl_edge.training.synthetic_executor import SyntheticExecutor
from fl_shared.tensors.manifest import Vector
from tests.support import programs
from tests.support.broker import Mosquitto
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


def made(directory: Path) -> tuple[RunRecord, list[do.Average], list[str]]:
    """The averages that follow from the journal, each once, and the digests of all versions."""
    record = read_run(directory)
    averages, digests = [], []
    for snapshot, effects in replay(record, directory):
        averages += [
            effect for effect in effects if isinstance(effect, do.Average) and effect.base is not None
        ]
        model = snapshot.state.model
        if model is not None and model.digest not in digests:
            digests.append(model.digest)
    return record, averages, digests


def updated(record: RunRecord, base: Vector, average: do.Average) -> Vector:
    """x + Σ n s(τ) Δ / Σ n, exactly: the update of a synthetic edge follows from its ticket."""
    staleness = parse_staleness(record.settings.staleness or "")
    bits = record.settings.scale_bits
    total = np.zeros(len(base), np.int64)
    for update in average.contributors:
        delta = np.empty(len(base), np.float32)
        synthetic_executor._fill(delta, edge_seed(record.settings.seed, update.round, update.client))
        weight = update.examples * staleness(update.staleness)
        total += np.rint(delta.astype(np.float64) * weight * 2.0**bits).astype(np.int64)
    examples = sum(update.examples for update in average.contributors)
    return (base + total / 2.0**bits / examples).astype(np.float32)


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
    record, averages, digests = made(directory / "run")
    assert [average.version for average in averages] == list(range(1, ROUNDS + 1)), (
        "each version is averaged once"
    )
    weights = np.empty(VALUES, np.float32)
    manifest = SyntheticExecutor(VALUES).initial_weights(record.settings.seed, lambda _: weights)
    assert Model.of(manifest, weights).digest == digests[0]
    for average in averages:
        assert len(average.contributors) == 2
        weights = updated(record, weights, average)
        assert Model.of(manifest, weights).digest == digests[average.version], f"version {average.version}"
    assert np.array_equal(Checkpoints(directory / "run").read(ROUNDS, digests[-1]).weights, weights)
    assert max(update.staleness for average in averages for update in average.contributors) > 0
