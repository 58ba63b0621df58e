"""Models that no run can train are named when their task is loaded; odd ones that a run can train are not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.builders import never, partition, training_settings

pytest.importorskip("torch")

import torch
from torch import nn

from fl_edge.errors import UnusableModelError
from fl_edge.tasks.digits import DigitsTask
from fl_edge.tasks.registry import load_task, names
from fl_edge.tasks.task import LoadContext, Task
from fl_edge.training import local_training, model_check
from fl_edge.training.model_check import examine_model
from fl_edge.training.torch_executor import TorchExecutor

pytestmark = pytest.mark.edge


class Holder(nn.Module):
    """A linear layer, and whatever the test adds."""

    def __init__(
        self, parameters: dict[str, Any] | None = None, buffers: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.l = nn.Linear(64, 10)
        for name, value in (parameters or {}).items():
            self.register_parameter(name, nn.Parameter(value))
        for name, value in (buffers or {}).items():
            self.register_buffer(name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.l(x.flatten(1))
        return result


class Copying(Holder):
    """Its ``state_dict()`` hands out copies, as wrappers do."""

    def state_dict(self, *arguments: Any, **named: Any) -> Any:
        return {
            name: value.detach().clone() for name, value in super().state_dict(*arguments, **named).items()
        }


class Deaf(Holder):
    """It ignores the weights that it is given."""

    def load_state_dict(self, *_: Any, **__: Any) -> Any:
        return None


class Hiding(Holder):
    """Its ``state_dict()`` leaves out the bias."""

    def state_dict(self, *arguments: Any, **named: Any) -> Any:
        state = super().state_dict(*arguments, **named)
        del state["l.bias"]
        return state


class Extra(Holder):
    """It keeps a version beside its weights."""

    def get_extra_state(self) -> Any:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None: ...


def task_of(model: Callable[[], Any], shared: tuple[str, ...] | None = None) -> Task:
    class Made(DigitsTask):
        name = "made"

        def model(self, _seed: int) -> Any:
            torch.manual_seed(0)
            return model()

    class Choosing(Made):
        def shared(self, _model: nn.Module) -> tuple[str, ...]:
            assert shared is not None
            return shared

    return Made() if shared is None else Choosing()


@pytest.mark.parametrize("name", [name for name in names() if name not in ("tabular", "images", "series")])
def test_the_built_in_models_are_good(name: str) -> None:
    examine_model(load_task(name))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: None, "model() returns a NoneType, expected a torch.nn.Module"),
        (lambda: nn.Sequential(nn.LazyLinear(10)), "array '0.weight' is lazy"),
        (lambda: Holder({"w": torch.zeros(2, dtype=torch.complex64)}), "parameter 'w' is complex64"),
        (Hiding, "parameter 'l.bias' is not in state_dict()"),
        (Extra, "state '_extra_state' (get_extra_state) is no tensor"),
        (lambda: Holder({"n" * 300: torch.zeros(2)}), "has a name of 300 characters, expected at most 256"),
        (lambda: Holder({"__metadata__": torch.zeros(2)}), "'__metadata__' has a name that safetensors reserves"),
        (lambda: Holder(buffers={"b": torch.zeros(1).expand(10)}), "array 'b' is expanded"),
        (lambda: Holder(buffers={"b": torch.zeros(1, device="meta")}), "array 'b' is on the device meta"),
        (lambda: Holder(buffers={"b": torch.eye(2).to_sparse()}), "in the layout torch.sparse_coo"),
        (lambda: Holder(buffers={"b": torch.tensor([1.0, torch.nan])}), "'b' has first values that are not finite"),
        (lambda: Holder(buffers={"b": torch.zeros([1] * 17)}), "has 17 dimensions, expected at most 16"),
        (nn.Identity, "shares no values"),
        (lambda: nn.ParameterList([torch.zeros(0)]), "shares no values"),
        (Deaf, "array 'l.weight' does not take the weights"),
    ],
)  # fmt: skip
def test_a_model_that_no_run_can_train_is_named(model: Callable[[], Any], words: str) -> None:
    with pytest.raises(UnusableModelError) as raised:
        examine_model(task_of(model))
    assert str(raised.value).startswith("task made: the model: ")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("shared", "words"),
    [
        (("l.weight", "l.other"), "shared() names 'l.other'"),
        (("_extra_state",), "'_extra_state' is dict: expected a floating-point tensor"),
        ((), "shares no values"),
    ],
)
def test_a_wrong_choice_of_what_is_shared_is_named(shared: tuple[str, ...], words: str) -> None:
    with pytest.raises(UnusableModelError) as raised:
        examine_model(task_of(Extra, shared))
    assert words in str(raised.value)


def test_what_a_task_keeps_at_home_on_purpose_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        examine_model(task_of(Extra, ("l.weight",)))
    assert "task made: not shared, each edge keeps its own: _extra_state, l.bias" in caplog.text
    executor = TorchExecutor(task_of(Extra, ("l.weight",)), None, "cpu")
    assert executor.summarize("0", None).local == ("_extra_state", "l.bias")


@pytest.mark.parametrize(
    "model",
    [
        lambda: Holder({"0d": torch.tensor(1.0), "none": torch.empty(0, 5), "größe 😀\t": torch.zeros(2)}),
        lambda: Holder({"turned": torch.randn(10, 64).t(), "short": torch.zeros(3, dtype=torch.bfloat16)}),
        lambda: Holder(buffers={"count": torch.tensor(3), "no": None}),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(64, 10)),
        lambda: nn.Sequential(nn.BatchNorm1d(64, momentum=None), nn.Linear(64, 10)),
    ],
)
def test_an_odd_model_is_good(model: Callable[[], Any]) -> None:
    examine_model(task_of(model))


def test_a_model_may_share_so_many_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_check, "MAX_ARRAYS", 20)
    examine_model(task_of(lambda: nn.ParameterList([torch.zeros(1)] * 20)))
    with pytest.raises(UnusableModelError, match="shares 21 arrays with 21 values, expected at most 20 "):
        examine_model(task_of(lambda: nn.ParameterList([torch.zeros(1)] * 21)))


def test_a_model_whose_state_is_a_copy_learns() -> None:
    task = task_of(Copying)
    executor = TorchExecutor(task, None, "cpu")
    summary = executor.summarize("0", partition(holdout=0.2))
    manifest, base = local_training.initial_weights(task, 0)
    assert manifest == summary.manifest
    data = task.load(LoadContext("0", partition(holdout=0.2), None))
    settings = training_settings(epochs=20)
    update = local_training.train_update(task, data, base, manifest, settings, 1, "7", never)
    assert data.holdout is not None
    scores = local_training.evaluate(task, base + update.delta, manifest, data.holdout)
    assert update.metrics.before is not None
    assert scores.loss < update.metrics.before["loss"]
