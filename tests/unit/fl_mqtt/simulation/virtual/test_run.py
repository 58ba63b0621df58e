"""A run in virtual time goes on with the devices with which it began, and only where that is possible."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner

import fl_mqtt
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.server import launch as launches
from fl_aggregator.server.launch import Launch
from fl_aggregator.storage.run_directory import FleetRecord, VirtualTimeRecord, read_run
from fl_mqtt.cli.main import cli
from fl_mqtt.simulation.virtual.fleet import Fleet
from fl_mqtt.simulation.virtual.run import VirtualRun
from fl_mqtt.simulation.virtual.specification import read_specification
from fl_shared.errors import RunFailed, UserError
from tests.support.device_files import AVAILABILITY, CAPACITY, GOOD, traced


def launched(tmp_path: Path, devices: str) -> Launch:
    record = VirtualTimeRecord(heterogeneity=devices, sha256=read_specification(devices).sha256)
    settings = Settings(task="synthetic-16", clients=2, per_round=2, rounds=1)
    launch = launches.new(settings, tmp_path / "run", fleet=FleetRecord(virtual=record))
    launch.directory.write_run(launch.record)
    return launch


def test_devices_that_have_changed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(GOOD)
    launched(tmp_path, str(path)).close()
    path.write_text(GOOD.replace("100.0", "200.0"))
    with (
        closing(launches.resume(tmp_path / "run", simulated=True)) as launch,
        pytest.raises(UserError, match=r"devices.toml: the file.* is not what it was when the run began"),
    ):
        VirtualRun(launch)


def test_devices_and_data_are_found_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(tmp_path, CAPACITY, AVAILABILITY)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    run = ("--task", "synthetic-16", "--clients", "9", "--rounds", "1")
    begun = (*run, "--data", "data", "--run-dir", "run")
    virtual = ("--virtual", "--heterogeneity", "devices.toml")
    done = CliRunner().invoke(cli, ["simulate", *begun, *virtual])
    assert done.exit_code == 0, done.output + str(done.exception)
    fleet = read_run(tmp_path / "run").fleet
    assert fleet is not None
    assert fleet.virtual is not None
    assert fleet.virtual.heterogeneity == str(tmp_path / "devices.toml")
    assert fleet.options["data"] == str(tmp_path / "data")


def test_the_library_says_how_to_go_on(tmp_path: Path) -> None:
    launched(tmp_path, "uniform").close()
    with pytest.raises(UserError, match=r"in virtual time; continue it with: .*simulate --resume"):
        fl_mqtt.simulate(resume=tmp_path / "run")


class NoFleet:
    """The edges of a run in which nothing happens."""

    stopped: str | None = None


def test_a_run_in_which_nothing_is_left_that_could_happen_fails(tmp_path: Path) -> None:
    with closing(launched(tmp_path, "uniform")) as launch:
        run = VirtualRun(launch)
        said = r"nothing is left that could happen: the run is selecting, and waits for edges; .* --resume .*/run$"
        with pytest.raises(RunFailed, match=said):
            run._loop(cast(Fleet, NoFleet()))
