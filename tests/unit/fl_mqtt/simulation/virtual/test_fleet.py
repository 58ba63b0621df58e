"""Devices that die in their trainings come back, and answer."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.phases import Finished
from fl_aggregator.server import launch as launches
from fl_edge.runtime.worker_setup import EdgeSettings
from fl_mqtt.simulation.virtual.aggregator import Aggregator
from fl_mqtt.simulation.virtual.devices import Devices
from fl_mqtt.simulation.virtual.fleet import RESTART_SECONDS, Fleet
from fl_mqtt.simulation.virtual.network import Network
from fl_mqtt.simulation.virtual.specification import read_specification
from fl_mqtt.simulation.virtual.world import World
from tests.support.virtual_federation import VALUES, InstantJobs

ALWAYS = """\
[speed]
median = 100.0
[down]
median = 1e6
[up]
median = 1e6
[availability]
drop = 1.0
"""
MODES: dict[str, dict[str, Any]] = {
    "sync": {"per_round": 3, "grace": 3600.0},
    "async": {"mode": "async", "concurrency": 3, "buffer": 3, "max_staleness": 1000},
}


@pytest.mark.parametrize("mode", MODES)
def test_a_device_dies_once_in_the_training_of_a_round(mode: str, tmp_path: Path) -> None:
    """Else it would train for its ticket, or for a round that waits for it, for ever."""
    (tmp_path / "devices.toml").write_text(ALWAYS)
    devices = Devices(read_specification(str(tmp_path / "devices.toml")), 0)
    settings = Settings.model_validate(
        {"task": f"synthetic-{VALUES}", "clients": 3, "rounds": 2, "holdout": 0.0, **MODES[mode]}
    )
    world, jobs = World(), InstantJobs()
    network = Network(world)
    with closing(launches.new(settings, tmp_path / "run")) as launch:
        launch.directory.write_run(launch.record)
        aggregator = Aggregator(launch, world, network)
        edges = [EdgeSettings(name, ("train",), tmp_path / "edges" / name) for name in "012"]
        Fleet(
            world, network, jobs, devices, edges, task=settings.task, epochs=10, light=False, chunk_size=2**20
        )
        aggregator.begin()
        while not aggregator.state.ended and world.now < 10 * RESTART_SECONDS:
            world.step()
    assert isinstance(aggregator.state.phase, Finished), aggregator.state.phase
    assert world.now > 2 * RESTART_SECONDS
    trained = Counter(number for _, number in jobs.trained if number > 0)
    assert trained == {1: 3, 2: 3}
