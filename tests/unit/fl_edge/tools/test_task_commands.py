"""``fl-edge new-task`` and ``fl-edge check-task``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch")
from fl_edge.cli import OTHER_COMMANDS
from fl_edge.tools.task_commands import check_task, new_task
from fl_shared.errors import RunFailed, UserError
from tests.support import programs
from tests.support.tables import houses
from tests.support.without_packages import NOT_IN_LITE, without_packages

pytestmark = pytest.mark.edge

MISTAKES = """
import json

import numpy as np
import torch
from torch import nn

from fl_edge.tasks.digits import DigitsTask
from fl_edge.tasks.task import Examples, LoadContext, LocalData, Metric, Scores, Task, TrainingDefaults


class Short(DigitsTask):
    defaults = TrainingDefaults(epochs=1)


class Good(Short):
    def shared(self, model):
        return tuple(name for name in super().shared(model) if not name.startswith("fc2"))


class Moody(Short):
    # Its first weights do not depend on the seed.
    def model(self, seed):
        model = super().model(seed)
        with torch.no_grad():
            model.fc2.bias += torch.from_numpy(np.random.rand(10))
        return model


class Alone(nn.Module):
    # Cannot take a single example, and has a tied layer, a frozen one, and other types.
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.first = nn.Linear(64, 64).to(torch.float64)
        self.second = self.first
        self.frozen = nn.Linear(10, 10).requires_grad_(False)
        self.last = nn.Linear(64, 10)

    def forward(self, images):
        return self.last(self.second(self.norm(images.flatten(1)).double()).float()).squeeze()


class Rare(Short):
    def network(self):
        return Alone()

    def model(self, seed):
        return Alone()


class Lazy(Short):
    def train(self, *_):
        from fl_edge.tasks.task import TrainReport
        return TrainReport(1, 0.5)

    def predict(self, *_):
        return {"value": float("nan")}


class Alternate(Short):
    # Divides so that a part may be empty.
    def load(self, context):
        data = super().load(LoadContext("", context.partition.model_copy(update={"count": 1, "index": 0}), None))
        part = slice(context.part, None, context.parts)
        return LocalData(Examples(data.train.inputs[part], data.train.labels[part]), None)


class Hasty(Short):
    defaults = TrainingDefaults(lr=1e6)


class Stumbling(Alternate):
    def load(self, context):
        data = super().load(context)
        data.train.labels[0]
        return data


class Gappy(Short):
    def load(self, context):
        data = super().load(context)
        images = data.train.inputs.clone()
        images[7] = float("nan")
        return LocalData(Examples(images, data.train.labels), data.holdout)


class Measured(Short):
    metrics = (Metric("wrong", higher_is_better=False, unit="kg"),)

    def evaluate(self, model, examples):
        return Scores(len(examples), 0.5, {"wrong": 21.5})

    load_test = Task.load_test

    def example_request(self):
        return None

    def predict(self, model, payload):
        return json.loads(payload)
"""


def run(task: str, *more: str) -> Result:
    return CliRunner().invoke(check_task, [task, *more], catch_exceptions=True)


def table(result: Result) -> dict[str, tuple[str, str]]:
    """Each line: what was checked, its sign, its detail."""
    lines = [line for line in result.output.splitlines() if line[:7].strip() in ("ok", "FAILED", "–")]
    return {line[8:36].strip(): (line[:7].strip(), line[37:]) for line in lines}


@pytest.fixture
def mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "tasks_with_mistakes.py").write_text(MISTAKES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "tasks_with_mistakes"


def test_a_task_that_keeps_everything(mistakes: str) -> None:
    result = run(f"{mistakes}:Good")
    found = table(result)
    assert result.exit_code == 0, result.output
    assert {sign for sign, _ in found.values()} == {"ok"}
    assert found["what travels"][1] == "6 arrays, 207 kB as float32; stays at home: fc2.bias, fc2.weight"


def test_weights_that_do_not_come_from_the_seed(mistakes: str) -> None:
    result = run(f"{mistakes}:Moody")
    assert table(result)["weights from the seed alone"] == (
        "FAILED", "model(1) differs from model(1): draw from torch's generator, or one of your own",
    )  # fmt: skip
    assert isinstance(result.exception, RunFailed)


def test_data_that_are_not_finite(mistakes: str) -> None:
    found = table(run(f"{mistakes}:Gappy"))
    odd = "NaN or infinity in the inputs of example 7 (from 0) of those to train on"
    assert found["data"][1].endswith(f"; {odd}")
    assert found["training, one epoch"] == ("FAILED", f"task digits: load(): {odd}, expected finite numbers")
    assert found["options of training"] == ("–", "not tried: training fails")


def test_rare_arrays_are_listed_and_a_single_example_is_tried(mistakes: str) -> None:
    found = table(run(f"{mistakes}:Rare"))
    assert found["types of numbers"][1].startswith("travel as float32: first.bias (float64)")
    assert found["tied and frozen parameters"][1] == (
        "tied: first.weight = second.weight, first.bias = second.bias; frozen: frozen.weight, frozen.bias; "
        "they travel: let shared() leave them out"
    )
    assert "num_batches_tracked" in found["what travels"][1]
    assert "buffers: norm.running_mean, norm.running_var" in found["what travels"][1]
    assert found["training on 1 example"][0] == "FAILED"
    assert found["training on 32 examples"][0] == "ok"


@pytest.mark.parametrize(
    ("task", "sign", "detail"),
    [
        ("{}:Alternate", "ok", "such an edge registers with 0 examples, and no update travels"),
        pytest.param("{}:Stumbling", "FAILED", "IndexError: ", marks=pytest.mark.long),
        pytest.param("digits", "ok", "load() refuses it: count: ", marks=pytest.mark.long),
    ],
)
def test_a_part_with_0_examples_is_tried(mistakes: str, task: str, sign: str, detail: str) -> None:
    found = table(run(task.format(mistakes)))["a part with 0 examples"]
    assert found[0] == sign
    assert found[1].startswith(detail)


def test_options_that_training_cannot_take_are_named(mistakes: str) -> None:
    sign, detail = table(run(f"{mistakes}:Lazy"))["options of training"]
    assert sign == "ok"
    assert detail == (
        "no --correct and --clip-gradients: the task takes no step through torch.optim or fl_edge.tasks.sgd, so that "
        "nothing reaches its gradients; no --logit-adjustment: the task does not train with the cross-entropy of "
        "fl_edge.tasks.sgd"
    )


def test_defaults_that_diverge_are_found(mistakes: str) -> None:
    sign, detail = table(run(f"{mistakes}:Hasty"))["training by its defaults"]
    assert sign == "FAILED"
    assert detail.startswith("training diverged: the loss is ")


def test_a_task_that_learns_nothing_and_answers_with_nonsense(mistakes: str) -> None:
    result = run(f"{mistakes}:Lazy")
    found = table(result)
    assert found["training, one epoch"] == ("FAILED", "no weight has changed")
    assert found["prediction"] == ("FAILED", "the model's output is not finite")
    assert found["prediction of nonsense"][0] == "FAILED"
    assert str(result.exception) == f"task {mistakes}:Lazy: 3 checks failed"


def test_what_is_measured_has_its_unit_and_any_other_error_than_a_payloads_is_named(mistakes: str) -> None:
    found = table(run(f"{mistakes}:Measured"))
    assert found["evaluation"] == ("ok", "loss 0.5000, wrong 21.50 kg")
    assert found["test split"] == ("–", "not tried: the task has no test split")
    assert found["prediction"] == (
        "–",
        "not tried: example_request() gives none, so the dashboard has no form",
    )
    sign, detail = found["prediction of nonsense"]
    assert (sign, detail.split(":")[0]) == ("FAILED", "UnicodeDecodeError")
    assert detail.endswith("expected a PayloadError")


def test_what_cannot_be_tried_is_said(tmp_path: Path, mistakes: str) -> None:
    found = table(run("mnist", "--data", str(tmp_path)))
    assert found["data"][0] == "FAILED"
    assert found["training repeats"] == ("–", "not tried: there are no data")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "task 'nope' is unknown here"),
        (["digits", "--task-option", "a=b"], "task digits: option 'a' is unknown, expected one of: none"),
        (["nowhere:Nothing"], "cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_a_users_mistake_is_one_line(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_without_torch_it_checks_what_a_light_edge_trains(tmp_path: Path) -> None:
    environment = without_packages(tmp_path / "site", *NOT_IN_LITE)
    ended = [
        subprocess.run(
            [sys.executable, "-m", "fl_edge", "check-task", task],
            env=environment, capture_output=True, text=True, timeout=120,
        )
        for task in ("digits-mlp", "digits")
    ]  # fmt: skip
    assert (ended[0].returncode, ended[0].stderr) == (0, "")
    assert "parameters, with NumPy" in ended[0].stdout
    assert "FAILED" not in ended[0].stdout
    assert ended[1].returncode == 2
    assert ended[1].stderr == (
        "fl-edge check-task: task 'digits' needs torch, which is not installed: pip install 'fl-mqtt[edge]'\n"
    )


@pytest.mark.parametrize("task", ["digits-mlp", "tabular"])
def test_light_and_full_checks_find_the_same(task: str, tmp_path: Path) -> None:
    houses(tmp_path / "houses.csv", 1)
    options = ["--data", str(tmp_path), *(["--task-option", "target=price"] if task == "tabular" else [])]
    full, light = run(task, *options), run(task, *options, "--light")
    assert (full.exit_code, light.exit_code) == (0, 0), light.output
    for what in (
        "data",
        "metrics",
        "what travels",
        "types of numbers",
        "options of training",
        "a part with 0 examples",
        "test split",
    ):
        assert table(full)[what] == table(light)[what]
    assert {sign for sign, _ in table(light).values()} <= {"ok", "–"}
    assert table(light)["training repeats"] == ("ok", "the same bits twice")


def test_a_task_that_no_light_edge_trains(mistakes: str) -> None:
    result = run(f"{mistakes}:Good", "--light")
    assert str(result.exception) == (
        "--light: task 'digits' needs PyTorch: light edges train tasks with dense models"
    )


def test_a_new_task_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = CliRunner().invoke(new_task, [str(tmp_path / "power-use")])
    assert made.exit_code == 0, made.output
    assert made.output.splitlines()[-1] == (
        f"try it:  cd {tmp_path / 'power-use'} && fl-edge check-task power_use:PowerUseTask --data data"
    )
    monkeypatch.chdir(tmp_path / "power-use")
    monkeypatch.setattr(sys, "path", [*sys.path])
    result = run("power_use:PowerUseTask", "--data", "data", "--task-option", "window=5")
    assert result.exit_code == 0, result.output
    assert table(result)["metrics"] == ("ok", "mae in kWh")
    assert table(result)["training by its defaults"] == ("ok", "10 epochs, batch 32, lr 0.01, momentum 0.9")
    assert table(result)["a part with 0 examples"][1].endswith(
        "(load() gives examples to part 196 of 196, so that none is empty here)"
    )
    assert table(result)["options of training"] == (
        "ok", "--correct and --clip-gradients; no --logit-adjustment: the task has no labels"
    )  # fmt: skip
    again = CliRunner().invoke(new_task, [str(tmp_path / "power-use")])
    assert "exists, expected a new directory" in str(again.exception)


def test_a_name_that_no_task_can_have() -> None:
    result = CliRunner().invoke(new_task, ["9 lives"])
    assert isinstance(result.exception, UserError)
    assert not Path("9 lives").exists()


@pytest.mark.parametrize("name", ["class", "json"])
def test_a_name_that_python_has_already(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(new_task, [str(tmp_path / name)])
    assert isinstance(result.exception, UserError)
    assert f"{name!r} means something else in Python" in str(result.exception)
    assert not (tmp_path / name).exists()


def test_both_are_commands_of_the_program(tmp_path: Path) -> None:
    for name in OTHER_COMMANDS:
        with programs.Program(tmp_path / name, "fl-edge", name, "--help") as program:
            assert program.wait(60) == 0
            assert f"fl-edge {name}" in program.out
