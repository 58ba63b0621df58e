"""Runs in virtual time in which real workers encode updates."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.state import Finished, Run
from fl_aggregator.server import launch as launches
from fl_aggregator.storage.run_directory import FleetRecord, VirtualTimeRecord
from fl_mqtt.simulation.virtual.run import VirtualRun
from fl_mqtt.simulation.virtual.specification import read_specification

pytestmark = pytest.mark.edge

SETTINGS = Settings(task="synthetic-1000", clients=3, per_round=2, rounds=3, seed=7, grace=0.0)
"""Of runs whose workers need no torch."""


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
