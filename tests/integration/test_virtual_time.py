"""Runs in virtual time, with the real training: they make the models that a run over a broker makes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Finished
from fl_aggregator.round.state import Run
from fl_aggregator.server import launch as launches
from fl_aggregator.server.launch import Launch
from fl_aggregator.server.runner import Observer
from fl_aggregator.storage.run_directory import FleetRecord, VirtualTimeRecord
from fl_mqtt.simulation.virtual.run import VirtualRun
from fl_mqtt.simulation.virtual.specification import read_specification
from tests.support import programs

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("forked_children")]

OPTIONS = ("--clients", "4", "--per-round", "4", "--rounds", "3", "--epochs", "2", "--seed", "7")
SETTINGS = Settings(task="synthetic-1000", clients=4, per_round=4, rounds=3, seed=7, grace=0.0)
"""Of runs whose workers need no torch."""


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The directory and the result of a run with one worker."""
    directory = tmp_path_factory.mktemp("virtual")
    with programs.simulate_virtually(directory, *OPTIONS, "--workers", "1") as run:
        run.ends_well()
    return directory, run.result


@pytest.mark.broker
def test_the_model_is_that_of_a_run_over_a_broker(
    tmp_path: Path, virtual: tuple[Path, dict[str, Any]]
) -> None:
    with programs.simulate(tmp_path, *OPTIONS) as real:
        real.ends_well()
    directory, result = virtual
    assert result["model_sha256"] == real.result["model_sha256"]
    assert result["metrics"] == real.result["metrics"]
    for ours, theirs in zip(programs.history(directory), programs.history(tmp_path), strict=True):
        assert {**ours, "seconds": 0, "bytes": 0, "virtual_seconds": None, "real_seconds": None} == {
            **theirs,
            "seconds": 0,
            "bytes": 0,
        }


def test_the_result_says_which_clock(virtual: tuple[Path, dict[str, Any]]) -> None:
    directory, result = virtual
    lines = programs.history(directory)
    assert result["clock"] == "virtual"
    assert result["virtual_seconds"] == result["seconds"]
    ends = [line["virtual_seconds"] for line in lines]
    assert ends == sorted(ends)
    assert ends[-1] < result["virtual_seconds"]
    assert lines[-1]["real_seconds"] <= result["real_seconds"]


def test_two_workers_write_the_same_journal(tmp_path: Path, virtual: tuple[Path, dict[str, Any]]) -> None:
    with programs.simulate_virtually(tmp_path, *OPTIONS, "--workers", "2") as run:
        run.ends_well()
    directory, result = virtual
    assert run.result["model_sha256"] == result["model_sha256"]
    one, two = ((path / "run" / "journal.jsonl").read_text() for path in (directory, tmp_path))
    assert one == two


class Crash(Exception):
    """What the test raises."""


def crash_after(steps: int) -> Observer:
    left = [steps]

    def observe(_state: Run, _effects: tuple[do.Effect, ...], _now: float) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Crash

    return observe


def launched(directory: Path) -> Launch:
    devices = VirtualTimeRecord(heterogeneity="uniform", sha256=read_specification("uniform").sha256)
    return launches.new(SETTINGS, directory, fleet=FleetRecord(virtual=devices))


def ended(launch: Launch, observer: Observer | None = None) -> Run:
    with closing(launch):
        return VirtualRun(launch, observer).run().state


def test_killed_and_resumed_it_makes_the_same_model(tmp_path: Path) -> None:
    """Every event is tried with simple jobs, in the unit tests."""
    expected = ended(launched(tmp_path / "whole")).model
    for step in (3, 14, 22, 33):
        directory = tmp_path / str(step)
        with pytest.raises(Crash):
            ended(launched(directory), crash_after(step))
        state = ended(launches.resume(directory, simulated=True))
        assert isinstance(state.phase, Finished)
        assert state.model == expected, step


def test_a_stop_request_ends_it_cleanly(tmp_path: Path) -> None:
    with closing(launched(tmp_path / "run")) as launch:
        run = VirtualRun(launch)
        run.request_stop("enough")
        outcome = run.run()
    assert outcome.state.phase.name == "interrupted"
    assert isinstance(ended(launches.resume(tmp_path / "run", simulated=True)).phase, Finished)
