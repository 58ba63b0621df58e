"""Block D of the learning benchmark: the devices, the division of the data, and a cell in virtual time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.edge
learning = pytest.importorskip("learning")
plan = pytest.importorskip("learning_cells")
task = pytest.importorskip("learning_task")
timed = pytest.importorskip("learning_time")


def test_the_devices_are_those_of_the_preset_the_slowest_first(tmp_path: Path) -> None:
    from fl_mqtt.simulation.virtual.devices import Devices
    from fl_mqtt.simulation.virtual.specification import read_specification

    preset = Devices(read_specification("gateways"), 3)
    expected = sorted((preset.device(str(number)) for number in range(9)), key=lambda device: device.speed)
    file = timed.write_devices("gateways", 9, 3, tmp_path)
    ordered = Devices(read_specification(str(file)), 3)
    assert [ordered.device(str(number)) for number in range(9)] == expected
    assert expected[0].speed < expected[-1].speed


def test_the_slow_third_has_three_classes_to_itself() -> None:
    from fl_shared.protocol.messages import Partition

    labels = np.arange(3000, dtype=np.int64) % 10
    partition = Partition(index=0, count=9, scheme="natural", seed=1, holdout=0.2, examples=2000)
    parts = task.divided_by_class(labels, partition)
    assert len(parts) == 9
    together = np.concatenate(parts)
    assert len(together) == len(set(together.tolist())) == 2000
    for part in parts[:3]:
        assert set(labels[part]) <= set(task.RARE)
    for part in parts[3:]:
        assert not set(labels[part]) & set(task.RARE)


def test_a_time_is_that_of_the_first_version_that_is_as_accurate() -> None:
    line = {"curve": [(1, 0.4), (2, 0.6), (3, 0.5)], "times": [(10.0, 0.4), (20.0, 0.6), (40.0, 0.5)]}
    assert timed.seconds_to(line, 0.5) == 20.0
    assert timed.seconds_to(line, 0.7) is None
    assert timed.shares_of_time(line, {"virtual_seconds": 80.0}) == {
        1: (12.5, 0.4),
        2: (25.0, 0.6),
        3: (50.0, 0.5),
    }


def test_all_paces_have_as_many_updates_in_their_versions() -> None:
    cells = plan.selected(plan.all_cells(0.01), "D/gateways/IID/*/0")
    assert {cell.options["rounds"] * cell.options["per_round"] for cell in cells} == {400}
    assert len({cell.digest for cell in cells}) == len(cells) == len(plan.PACES)


@pytest.mark.long
@pytest.mark.usefixtures("forked_children")
def test_a_cell_in_virtual_time_becomes_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from fl_edge.tasks.digits import DigitsTask

    monkeypatch.setitem(learning.TASKS, "digits", DigitsTask)
    options = {
        "clients": 3, "per_round": 2, "rounds": 2, "epochs": 1, "lr": 0.05, "seed": 3, "holdout": 0.2, "mode": "async",
        "concurrency": 3, "buffer": 2, "evaluate_every": 1, "train_examples": 120,
    }  # fmt: skip
    cell = plan.Cell("D/gateways/IID/FedBuff", 3, "digits", options, devices="gateways")
    line = learning.run(cell, None, workers=1)
    assert (line["cell"], line["settings"], line["rounds"]) == (cell.name, cell.digest, 2)
    assert [version for version, _ in line["curve"]] == [1, 2]
    seconds = [at for at, _ in line["times"]]
    assert 0 < seconds[0] < seconds[1] <= line["virtual_seconds"] + 0.1
    assert set(line["edges"]) == {"0", "1", "2"}
    assert line["worst_third"] == min(line["edges"].values())
    assert line["slow_third"] == line["edges"]["0"]
    assert plan.line_of(cell, [line]) == line


def test_what_simulate_says_is_the_error(tmp_path: Path) -> None:
    cell = plan.selected(plan.all_cells(0.01), "D/phones/IID/rounds/0")[0]
    wrong = plan.Cell(cell.name, 0, cell.task, {**cell.options, "quorum": 99}, devices="phones")
    with pytest.raises(learning.UserError, match="quorum"):
        timed.simulate(wrong, None, 1, tmp_path / "run")
