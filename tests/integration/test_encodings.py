"""Runs in virtual time in which real workers encode updates."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.phases import Finished
from fl_aggregator.round.state import Run
from fl_aggregator.server import launch as launches
from fl_aggregator.storage.run_directory import FleetRecord, VirtualTimeRecord
from fl_mqtt.simulation.virtual.run import VirtualRun
from fl_mqtt.simulation.virtual.specification import read_specification
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.manifest import ArraySpec, Manifest

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("forked_children")]

SETTINGS = Settings(task="synthetic-1000", clients=3, per_round=2, rounds=3, seed=7, grace=0.0)
"""Of runs whose workers need no torch."""


SYNTHETIC = Manifest(arrays=(ArraySpec(name="w", shape=(1000,)),))


def ended(directory: Path, **changes: Any) -> tuple[Run, list[dict[str, Any]]]:
    """The state at the end of a run, and the lines of its history."""
    settings = Settings.model_validate(SETTINGS.model_dump() | changes)
    devices = VirtualTimeRecord(heterogeneity="uniform", sha256=read_specification("uniform").sha256)
    with closing(launches.new(settings, directory, fleet=FleetRecord(virtual=devices))) as launch:
        state = VirtualRun(launch).run().state
        assert isinstance(state.phase, Finished)
        return state, list(launch.directory.history())


def test_shuffle_deflate_changes_no_bit_of_the_model(tmp_path: Path) -> None:
    exact, packed = (ended(tmp_path / name, encoding=name) for name in ("f32", "shuffle-deflate"))
    assert packed[0].model == exact[0].model
    for ours, plain in zip(packed[1], exact[1], strict=True):
        assert ours["metrics"] == plain["metrics"]
        assert ours["encoding"] == ("shuffle-deflate" if ours["version"] else "f32")
        assert ours["version"] == 0 or ours["bytes"]["up"] < plain["bytes"]["up"]


@pytest.mark.parametrize("encoding", ["bf16", "q8", "shuffle-deflate", "topk:0.1"])
def test_every_encoding_in_an_asynchronous_run(tmp_path: Path, encoding: str) -> None:
    asynchronous = {"mode": "async", "per_round": None, "buffer": 2, "concurrency": 3}
    _, lines = ended(tmp_path / "run", encoding=encoding, **asynchronous)
    assert [(line["outcome"], line["encoding"]) for line in lines] == [("committed", encoding)] * 3
    size = SectionFormat.of(encoding, SYNTHETIC).sizes
    assert all(line["bytes"]["up"] >= 2 * size[0] for line in lines)


WITH_OWN_STATE: dict[str, dict[str, Any]] = {
    "SCAFFOLD": {"strategy": "scaffold"},
    "local parts and personal models": {"keep_local": ("fc2.*",), "personalize": 1},
}


@pytest.mark.parametrize("what", WITH_OWN_STATE)
@pytest.mark.parametrize("encoding", ["topk:0.1", pytest.param("shuffle-deflate", marks=pytest.mark.long)])
def test_an_encoding_beside_what_edges_keep(tmp_path: Path, what: str, encoding: str) -> None:
    """What `topk` has not sent is one more vector beside the control, or the local part."""
    digits = {"task": "digits-mlp", "train_examples": 200}
    _, lines = ended(tmp_path / "run", encoding=encoding, **digits, **WITH_OWN_STATE[what])
    assert [(line["outcome"], line["encoding"]) for line in lines] == [("committed", encoding)] * 3
    assert lines[-1]["metrics"]["accuracy"] > 0.5
