"""Round after round while edges come, go, hang and are killed: nothing is lost, and nothing piles up."""

from __future__ import annotations

from itertools import chain
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Finished
from fl_aggregator.storage.checkpoint import read_safetensors
from fl_aggregator.storage.replay import replay
from fl_aggregator.storage.run_directory import read_run
from fl_edge.training.synthetic_executor import SyntheticExecutor
from fl_shared.system.text import natural_key
from fl_shared.tensors.manifest import Manifest, Vector
from tests.support import programs
from tests.support.soak import VALUES, Sample, SoakRun

pytestmark = pytest.mark.broker


@pytest.mark.long
def test_fifty_rounds(tmp_path: Path) -> None:
    soak = SoakRun(tmp_path, rounds=50, pace=3, seed=1, blackouts=(0.5,))
    soak.run(100)
    nothing_is_lost(soak)
    nothing_is_left(soak)
    nothing_grows(soak.after(15), soak.at_the_end(), memory=1.15)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_rounds(tmp_path: Path) -> None:
    soak = SoakRun(tmp_path, rounds=1000, pace=8, seed=2, blackouts=(0.25, 0.5, 0.75))
    soak.run(500)
    nothing_is_lost(soak)
    nothing_is_left(soak)
    nothing_grows(soak.after(50), soak.at_the_end(), memory=1.05)


def nothing_is_lost(soak: SoakRun) -> None:
    """All versions were made, each of just those updates whose edges heard that they were accepted."""
    directory = soak.directory / "run"
    record = read_run(directory)
    settings = record.settings
    opened: set[int] = set()
    accepted: dict[int, dict[str, str]] = {}
    for snapshot, effects in chain.from_iterable(replay(record, folder) for folder in soak.journals):  # noqa: B007
        for effect in effects:
            match effect:
                case do.AnnounceRound(round=number):
                    opened.add(number)
                case do.SendReply(client=client, body=do.Accept(round=number, digest=digest)):
                    assert accepted.setdefault(number, {}).setdefault(client, digest) == digest
                case _:
                    pass
    lines = programs.history(soak.directory)
    committed = [line for line in lines if line["outcome"] == "committed"]
    abandoned = [line for line in lines if line["outcome"] == "abandoned"]

    assert [line["round"] for line in lines] == sorted(opened - {0})
    assert [line["version"] for line in committed] == list(range(1, soak.rounds + 1))
    assert len(committed) + len(abandoned) == len(lines)
    for line in committed:
        assert line["participants"] == sorted(accepted[line["round"]], key=natural_key), line
        assert set(line["missing"]) == set(line["cohort"]) - set(line["participants"]), line
    for line in abandoned:
        assert line["reason"], line
        assert set(accepted.get(line["round"], ())) <= set(line["cohort"]), line

    state = snapshot.state
    assert isinstance(state.phase, Finished)
    model = read_safetensors(directory / "model.safetensors")
    assert state.model is not None
    assert state.model.digest == model.digest == committed[-1]["digest"]
    np.testing.assert_array_equal(model.weights, trained(settings, committed, model.manifest))

    assert "Traceback" not in soak.output, soak.output
    # Else nothing of the above was put to the test.
    for what in ("SIGKILL", "SIGTERM", "hangs"):
        assert any(what in fault for fault in soak.faults), soak.faults
    assert any(line["missing"] for line in committed), soak.faults


def trained(settings: Settings, committed: list[dict[str, Any]], manifest: Manifest) -> NDArray[np.float32]:
    """What the protocol (5.4, 5.10) makes of these rounds: every update again, by whoever contributed it."""
    executor = SyntheticExecutor(VALUES)
    weights = np.empty(VALUES, np.float32)

    def into_weights(_values: int) -> Vector:
        return weights

    executor.initial_weights(settings.seed, into_weights)
    scale = 2.0 ** (62 - ceil(log2(settings.max_examples * settings.max_delta * settings.per_round)))
    for line in committed:
        total = np.zeros(VALUES, np.int64)
        examples = 0
        for client in line["participants"]:
            update = executor.train(
                weights,
                manifest,
                settings.partition_at(int(client)),
                settings.training_request(line["version"] - 1),
                line["round"],
                client,
                lambda: False,
                lambda values: np.empty(values, np.float32),
            )
            total += np.rint(update.delta.astype(np.float64) * (update.examples * scale)).astype(np.int64)
            examples += update.examples
        assert line["examples"] == examples
        weights = (weights + total / (examples * scale)).astype(np.float32)
    return weights


def nothing_is_left(soak: SoakRun) -> None:
    """Of ended rounds: at the broker, on disk; and of all those processes."""
    clients = {str(number) for number in range(12)} | {"judge"}
    newest = [line["round"] for line in programs.history(soak.directory)][-8:]
    models = sorted(topic for topic in soak.retained if topic.startswith("fl/model/"))
    expected = {"fl/aggregator", "fl/status", "fl/model", *models}
    expected |= {f"fl/clients/{client}/presence" for client in clients}
    expected |= {f"fl/round/{number}/result" for number in newest}
    expected |= {"fl/history", f"fl/round/{newest[-1]}/edges"}
    assert soak.retained == expected
    assert [topic.split("/")[-1] for topic in models] == ["0", "manifest"] * 2, (
        "two versions, of a chunk each"
    )

    directory = soak.directory / "run"
    assert list((directory / "spool").iterdir()) == []
    assert len(list((directory / "checkpoints").iterdir())) <= 3
    assert soak.left_behind == [], "processes of edges"


def nothing_grows(early: Sample, late: Sample, *, memory: float) -> None:
    assert late.resident <= early.resident * memory, (early, late)
    assert abs(late.descriptors - early.descriptors) <= 2, (early, late)
    assert abs(late.threads - early.threads) <= 2, (early, late)
    # One that is never cleared would be one more a round.
    assert late.retained <= early.retained + 8, (early, late)
