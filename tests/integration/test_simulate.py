"""Everything on one machine, as ``make demo`` does it: a real broker, a fleet, predictions."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fl_aggregator.storage.checkpoint import model_sha256
from tests.support import programs
from tests.support.wait import wait_until

SEVEN = Path(__file__).parents[2] / "examples" / "seven.png"
SMALL = (
    "--clients",
    "4",
    "--per-round",
    "3",
    "--rounds",
    "2",
    "--epochs",
    "2",
    "--deadline",
    "60",
    "--wait",
    "60",
)

pytestmark = [pytest.mark.broker, pytest.mark.edge]


def test_a_run_from_first_weights_to_a_prediction(tmp_path: Path) -> None:
    more = ("--clients", "6", "--per-round", "4", "--rounds", "4")
    with programs.simulate(tmp_path, *SMALL, *more, "--predict", str(SEVEN)) as run:
        run.ends_well()
    result, lines = run.result, programs.history(tmp_path)
    directory = tmp_path / "run"

    assert run.out.startswith("broker: mqtt://127.0.0.1:")
    assert "prediction: 7 " in run.out
    assert result["rounds"] == 4
    assert result["metrics"]["accuracy"] > 0.5
    assert result["model_sha256"] == model_sha256(directory / "model.safetensors")
    with safe_open(directory / "model.safetensors", framework="numpy") as model:
        metadata = model.metadata()
    assert (metadata["task"], metadata["version"]) == ("digits", "4")
    assert json.loads(metadata["metrics"]) == lines[-1]["metrics"]
    assert json.loads(metadata["strategy"])["server-optimizer"]["lr"] == 1.0
    assert result["run_dir"] == str(directory)
    assert result["refused"] == {}
    assert not any(line.startswith("refused") for line in run.out.splitlines())

    assert [line["round"] for line in lines] == [1, 2, 3, 4]
    assert [line["version"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert line["outcome"] == "committed"
        assert len(line["cohort"]) == 4
        assert sorted(line["cohort"]) == line["participants"]
        assert line["missing"] == line["refused"] == {}
        # 1438 training images over 6 edges, of which a fifth is held out.
        assert line["examples"] == pytest.approx(4 * 1438 / 6 * 0.8, abs=8)
        assert {"accuracy", "loss", "train_loss", "before_accuracy", "after_accuracy"} <= set(line["metrics"])
        assert line["metrics"]["evaluated_examples"] == 359
        assert set(line["seconds"]) == {"selecting", "collecting", "aggregating", "evaluating"}
        assert line["bytes"]["up"] > 0
        assert line["bytes"]["down"] > 0
    assert lines[-1]["metrics"]["accuracy"] == result["metrics"]["accuracy"]

    written = json.loads((directory / "run.json").read_text())
    assert written["run"] == result["run"]
    assert written["broker"].startswith("mqtt://127.0.0.1:")
    assert written["settings"]["clients"] == 6
    assert set(load_file(directory / "best.safetensors")) == set(load_file(directory / "model.safetensors"))
    assert not list((directory / "spool").iterdir()), "a committed round's spool is deleted"


LIGHT = (*SMALL, "--task", "digits-mlp")


@dataclass(frozen=True, slots=True)
class Small:
    """A run of `LIGHT` with the seed 7, which has ended."""

    directory: Path
    result: dict[str, Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    directory = tmp_path_factory.mktemp("small")
    environment = {**os.environ, "FL_LIGHT": "1"}
    with programs.simulate(directory, *LIGHT, "--seed", "7", environment=environment) as run:
        run.ends_well()
    return Small(directory, run.result)


@pytest.mark.usefixtures("light_edges")
def test_the_same_seed_gives_the_same_model(tmp_path: Path, small: Small) -> None:
    """Promise G3, over two runs whose updates arrive in whatever order."""
    with (
        programs.simulate(tmp_path / "again", *LIGHT, "--seed", "7", "--workers", "2") as again,
        programs.simulate(tmp_path / "other", *LIGHT, "--seed", "8") as other,
    ):
        again.ends_well()
        other.ends_well()
    digest = small.result["model_sha256"]
    assert again.result["model_sha256"] == digest
    assert other.result["model_sha256"] != digest


@pytest.mark.usefixtures("light_edges")
def test_first_weights_from_a_file(tmp_path: Path, small: Small) -> None:
    model = small.directory / "run" / "model.safetensors"
    # So small a step that the weights are still those of the file, but for the last digits.
    tiny = ("--init", str(model), "--lr", "1e-9", "--momentum", "0", "--rounds", "1")
    with programs.simulate(tmp_path, *LIGHT, *tiny) as second:
        second.ends_well()
    before, after = load_file(model), load_file(tmp_path / "run" / "model.safetensors")
    assert set(before) == set(after)
    for name in before:
        np.testing.assert_allclose(before[name], after[name], atol=1e-6)
    assert second.result["metrics"]["accuracy"] == pytest.approx(
        small.result["metrics"]["accuracy"], abs=0.01
    )


@pytest.mark.usefixtures("light_edges")
def test_first_weights_from_a_plain_state_dict(tmp_path: Path, small: Small) -> None:
    """Nothing in the file says which arrays are buffers, and an integer is left out."""
    model = small.directory / "run" / "model.safetensors"
    state = load_file(model)
    save_file({**state, "steps": np.array(3)}, tmp_path / "plain.safetensors")
    save_file({**state, "fc2.bias": np.zeros(11, np.float32)}, tmp_path / "other.safetensors")
    tiny = ("--lr", "1e-9", "--momentum", "0", "--rounds", "1")
    with (
        programs.simulate(tmp_path, *LIGHT, *tiny, "--init", str(tmp_path / "plain.safetensors")) as second,
        programs.simulate(tmp_path / "other", *LIGHT, "--init", str(tmp_path / "other.safetensors")) as third,
    ):
        second.ends_well()
        assert third.wait(60) == 2
    after = load_file(tmp_path / "run" / "model.safetensors")
    for name in state:
        np.testing.assert_allclose(state[name], after[name], atol=1e-6)
    assert "array 'fc2.bias' has the shape (11,), but (10,) in the edges' model" in third.err
    assert "Traceback" not in third.err


@pytest.mark.usefixtures("light_edges")
def test_the_target_ends_the_run(tmp_path: Path) -> None:
    settings = (*LIGHT, "--rounds", "30", "--target", "accuracy=0.3")
    with programs.simulate(tmp_path, *settings) as run:
        run.ends_well()
    assert run.result["rounds"] < 30
    assert run.result["metrics"]["accuracy"] >= 0.3
    assert all(line["metrics"]["accuracy"] < 0.3 for line in programs.history(tmp_path)[:-1])


LONG = ("--task", "synthetic-50", "--clients", "4", "--per-round", "3", "--rounds", "100000", "--wait", "60")


@pytest.mark.usefixtures("light_edges")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_all_children_end_with_it(
    tmp_path: Path, end: signal.Signals, request: pytest.FixtureRequest
) -> None:
    """However it ends: broker, fleet and workers with it."""
    if end is signal.SIGKILL:
        request.getfixturevalue("command_lines")
    with programs.simulate(tmp_path, *LONG) as run:
        wait_until(lambda: "round 1: version" in run.err, 60, "a committed round")
        children = programs.descendants(run.pid)
        try:
            assert any("mosquitto -c" in programs.command_line(pid) for pid in children)
            assert programs.workers_of_simulation(run)
            run.send(end)
            code = run.wait(20)
            wait_until(lambda: not programs.alive(children), 10, f"the end of {children}")
        finally:
            programs.kill_all(children)
    assert code == (-signal.SIGKILL if end is signal.SIGKILL else 130), run.output
    assert "Traceback" not in run.err


@pytest.mark.long
def test_a_missing_data_set_is_said_and_ends_it(tmp_path: Path) -> None:
    empty = tmp_path / "nothing"
    empty.mkdir()
    with programs.simulate(tmp_path, *SMALL, "--task", "cifar10", "--data", str(empty)) as run:
        code = run.wait(90)
    assert code == 2, run.output
    assert "cifar" in run.err.lower()
    assert "Traceback" not in run.err


def test_an_unknown_task_is_said_and_ends_it(tmp_path: Path) -> None:
    with programs.simulate(tmp_path, *SMALL, "--task", "nonsense") as run:
        code = run.wait(60)
    assert code == 2, run.output
    assert "nonsense" in run.err
    assert "digits" in run.err, "it says which tasks there are"
    assert "Traceback" not in run.err
