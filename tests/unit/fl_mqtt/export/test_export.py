"""``fl-aggregator export``: the model of a run, in formats of others."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fl_aggregator.configuration.settings import parse_settings
from fl_aggregator.storage.checkpoint import Checkpoints, Model
from fl_aggregator.storage.run_directory import new_record
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.task import Task
from fl_edge.training.local_training import initial_weights
from fl_mqtt.export.cli import export
from fl_shared.errors import UserError
from tests.support.without_packages import without_packages

pytestmark = pytest.mark.edge


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The directory of a run of ``digits`` with two versions, of which the first one is the best."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.begin_writing()
    for version in (1, 2):
        model = Model.of(*initial_weights(load_task("digits"), version))
        checkpoints.write(version, model, {"task": "digits"})
        if version == 1:
            checkpoints.store_best(1)
    return tmp_path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(export, list(map(str, arguments)))


def mistake(*arguments: str | Path) -> str:
    error = run(*arguments).exception
    assert isinstance(error, UserError), error
    return str(error)


def test_the_state_dict_has_all_arrays_of_the_tasks_model(run_dir: Path) -> None:
    import torch

    for options, file, seed in (("", "model.pt", 2), (f"--best --out {run_dir}/b.pt", "b.pt", 1)):
        done = run(run_dir, *options.split())
        assert done.output == f"written: {run_dir / file}\n"
        state = torch.load(run_dir / file, weights_only=True)
        expected = load_task("digits").model(seed).state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_the_onnx_model_gives_the_same_outputs(run_dir: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    import torch
    from onnx.reference import ReferenceEvaluator

    assert run(run_dir, "--format", "onnx").output == f"written: {run_dir / 'model.onnx'}\n"
    model = onnx.load(io.BytesIO((run_dir / "model.onnx").read_bytes()))
    inputs = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)
    (outputs,) = ReferenceEvaluator(model).run(None, {"input": inputs})
    with torch.inference_mode():
        expected = load_task("digits").model(2).eval()(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(np.asarray(outputs), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion-mnist", "cifar10"])
def test_image_tasks_have_an_example_of_what_their_model_takes(name: str) -> None:
    task = load_task(name)
    example = task.example_input()
    assert example is not None
    assert task.model(0)(example).shape == (1, 10)


def test_what_is_missing_is_said(
    run_dir: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path_factory.mktemp("empty")
    assert mistake(empty) == f"{empty}/model.safetensors: is missing, expected a run directory with a model"
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else name)
    assert mistake(run_dir, "--format", "onnx") == (
        "--format onnx needs onnx, which is not installed: pip install onnx"
    )


def test_without_torch_the_extra_that_installs_it_is_named(
    run_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = without_packages(tmp_path_factory.mktemp("light") / "site", "torch", "torchvision", "onnx")
    for directory, form, expected in (
        (run_dir, "torch", "--format torch needs torch, which is not installed: pip install 'fl-mqtt[edge]'"),
        (run_dir, "onnx", "--format onnx needs torch, which is not installed: pip install 'fl-mqtt[edge]'"),
        (
            run_dir / "gone",
            "torch",
            f"{run_dir}/gone/model.safetensors: is missing, expected a run directory",
        ),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "fl_aggregator", "export", str(directory), "--format", form],
            env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ended.returncode == 2, ended.stderr
        assert ended.stderr.startswith(f"fl-aggregator: {expected}")


def test_a_task_without_an_example_cannot_become_onnx(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(type(load_task("digits")), "example_input", Task.example_input)
    assert "task digits: cannot be exported to ONNX, since it has no example_input()" in mistake(
        run_dir, "--format", "onnx"
    )


def test_the_options_of_the_task_are_those_of_the_run(tmp_path: Path) -> None:
    import torch

    data, run_dir = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    (data / "pumps.csv").write_text("warm,shakes,fails\n1,2,no\n2,3,no\n8,9,yes\n9,9,yes\n")
    trained = load_task("tabular?hidden=3&model=mlp&target=fails")
    trained.prepare(data)
    settings = parse_settings(
        task="tabular", task_option={"target": "fails", "model": "mlp", "hidden": "3"}, clients=1, rounds=1
    )
    checkpoints = Checkpoints(run_dir)
    checkpoints.begin_writing()
    checkpoints.write(1, Model.of(*initial_weights(trained, 1)), {"task": "tabular"})
    assert "option 'target' is missing" in mistake(run_dir)
    (run_dir / "run.json").write_text(new_record(settings).model_dump_json())
    assert run(run_dir).output == f"written: {run_dir / 'model.pt'}\n"
    state = torch.load(run_dir / "model.pt", weights_only=True)
    assert {name: array.shape for name, array in state.items()} == {
        name: array.shape for name, array in trained.model(1).state_dict().items()
    }
    (run_dir / "run.json").write_text("{")
    assert f"DIR {run_dir}: {run_dir}/run.json: " in mistake(run_dir)


def test_a_model_of_another_task_is_refused(run_dir: Path) -> None:
    model = Model.of(*initial_weights(load_task("digits"), 0))
    for task, said in (
        ("mnist", "'conv1.bias' is a parameter of the shape [32], expected a parameter of the shape [20]"),
        ("gone", "task 'gone' is unknown here"),
    ):
        Checkpoints(run_dir).write(3, model, {"task": task})
        assert said in mistake(run_dir)
    Checkpoints(run_dir).write(3, model)
    assert "names no task" in mistake(run_dir)
