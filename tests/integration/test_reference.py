"""The reference workload on real Fashion-MNIST: shortened in ``make test``, whole in ``make test-long``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fl_edge.data.datasets import read
from fl_edge.errors import DataMissingError
from tests.support import programs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.long]


@pytest.fixture(scope="module")
def fashion_mnist() -> None:
    try:
        read("fashion-mnist", "test", download=False)
    except DataMissingError as error:
        pytest.skip(f"where Fashion-MNIST cannot be installed: {error}")


def test_twenty_edges_learn_fashion_mnist(tmp_path: Path, fashion_mnist: None) -> None:
    settings = (
        "--task",
        "fashion-mnist",
        "--train-examples",
        "2000",
        "--holdout",
        "0",
        "--rounds",
        "3",
        "--epochs",
        "10",
    )
    with programs.simulate(tmp_path, *settings, "--lr", "0.05", "--momentum", "0") as run:
        run.ends_well(110)
    lines = programs.history(tmp_path)
    assert [line["version"] for line in lines] == [1, 2, 3]
    assert all(len(line["participants"]) == 10 and line["examples"] == 1000 for line in lines)
    assert all(line["metrics"]["evaluated_examples"] == 10_000 for line in lines)
    losses = [line["metrics"]["loss"] for line in lines]
    assert losses == sorted(losses, reverse=True), "each version is better than the one before"
    # A tenth would be chance.
    assert run.result["metrics"]["accuracy"] > 0.6


@pytest.mark.timeout(1800)
def test_as_good_as_a_plain_loop(fashion_mnist: None) -> None:
    """Within half a point of a plain PyTorch FedAvg loop with the same seed, partition and cohorts."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "reference_workload.py")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rounds"] == 10
    assert abs(found["points"]) <= 0.5, found


@pytest.mark.timeout(1800)
def test_a_model_of_half_a_gigabyte() -> None:
    """130 million parameters, two edges, two rounds, a broker with default limits; memory of a few models."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "round_overhead.py"), "--params", "130000000", "--edges", "2",
         "--per-round", "2", "--rounds", "2", "--warm-up", "0", "--durability", "process", "--no-limit"],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rss_mb"]["aggregator"] <= 5 * 520e6 / 2**20, found
