"""An error in a task's own code names the line of the task, even if a library has raised it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch

from fl_edge.tasks.digits import DigitsTask
from fl_edge.tasks.registry import load_task
from fl_edge.workers.failures import failure_of

pytestmark = pytest.mark.edge

CODE = """import numpy as np
import torch
from fl_edge.tasks.digits import DigitsTask

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 24)

    def forward(self, values):
        return self.layer(values)

class Evap(DigitsTask):
    def train(self, model, *_):
        return model(torch.zeros(60, 4))

    def predict(self, *_):
        return np.zeros(3) @ np.zeros(4)
"""


@pytest.fixture
def evap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DigitsTask:
    (tmp_path / "evap_task.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    task = load_task("evap_task:Evap")
    assert isinstance(task, DigitsTask)
    return task


def test_an_error_inside_torch_names_the_line_of_the_task(evap: DigitsTask) -> None:
    import evap_task  # type: ignore[import-not-found]

    with pytest.raises(RuntimeError) as raised:
        evap.train(evap_task.Net(), None, None, None, None)  # type: ignore[arg-type]
    failed = failure_of(raised.value)
    assert failed.message.startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert failed.message.endswith(" (evap_task.py, line 11)")
    assert "linear.py" in failed.trace


def test_a_value_error_inside_numpy_names_it_too(evap: DigitsTask) -> None:
    with pytest.raises(ValueError, match="mismatch") as raised:
        evap.predict(torch.nn.Identity(), b"")
    assert failure_of(raised.value).message.endswith(" (evap_task.py, line 18)")


def test_a_long_message_keeps_its_place(evap: DigitsTask) -> None:
    with pytest.raises(ValueError, match="mismatch") as raised:
        evap.predict(torch.nn.Identity(), b"")
    raised.value.args = ("x" * 5000,)
    message = failure_of(raised.value).message
    assert len(message) == 1000
    assert message.endswith("x (evap_task.py, line 18)")
