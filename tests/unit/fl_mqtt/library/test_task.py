"""A class is passed on by the name of its module, or as a file."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import fl_mqtt
from fl_edge.tasks import registry
from fl_edge.tasks.digits_mlp import DigitsMlpTask
from fl_mqtt.library.task import PassedTask, passed_task
from fl_mqtt.simulation.local import PASSED_TASKS as MODULE
from fl_shared.errors import UserError


@pytest.fixture(autouse=True)
def _forget_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_a_name_stays_as_it_is() -> None:
    assert passed_task("digits") == PassedTask("digits")


def test_a_class_that_can_be_imported_is_named_by_its_module(tmp_path: Path) -> None:
    passed = passed_task(DigitsMlpTask)
    assert passed == PassedTask("fl_edge.tasks.digits_mlp:DigitsMlpTask")
    assert passed.write(tmp_path / "task")[0] == str(tmp_path / "task")
    assert not (tmp_path / "task").exists(), "nothing is needed"


def test_another_class_is_loaded_from_a_file_with_what_it_refers_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = ("cold", "warm")

    class MineOptions(fl_mqtt.TaskOptions):
        """As a user may write it."""

        hidden: int = 3

    class Mine(DigitsMlpTask):
        """Has a name of its own."""

        name = "mine"
        labels = classes
        Options = MineOptions  # type: ignore[assignment]

    passed = passed_task(Mine)
    assert passed.name == f"{MODULE}:Mine"
    directory = tmp_path / "a:b"
    directory.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, ""])
    places = passed.write(directory)
    assert places[0] == str(directory)
    assert places[-1] == str(tmp_path), "the current directory, wherever the other process is"
    monkeypatch.setenv(registry.TASK_PATH, json.dumps(places))
    task = registry.load_task(f"{passed.name}?hidden=5")
    assert (task.name, task.labels, task.options.hidden) == ("mine", classes, 5)  # type: ignore[attr-defined]


def test_a_class_whose_module_has_another_of_its_name_is_passed_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "edited_task.py").write_text(
        "from fl_edge.tasks.digits_mlp import DigitsMlpTask\nclass Mine(DigitsMlpTask): pass\n"
    )
    sys.path.insert(0, str(tmp_path))
    module: Any = importlib.import_module("edited_task")
    first = module.Mine
    assert passed_task(first).name == "edited_task:Mine"
    importlib.reload(module)
    assert passed_task(module.Mine).name == "edited_task:Mine"
    assert passed_task(first).name == f"{MODULE}:Mine"


def test_a_class_that_cannot_be_passed_on_says_what_to_do() -> None:
    lock = threading.Lock()

    class Mine(DigitsMlpTask):
        """Refers to what only this process has."""

        def layers(self) -> Any:
            with lock:
                return super().layers()

    with pytest.raises(UserError) as error:
        passed_task(Mine)
    assert str(error.value).startswith(
        "task: the class Mine cannot be passed to other processes (cannot pickle "
    )
    assert str(error.value).endswith("move it into a file NAME.py, and import it from there")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("task", [DigitsMlpTask(), dict, 7, None])
def test_anything_else_is_no_task(task: Any) -> None:
    with pytest.raises(
        UserError, match=r"expected a name, 'package.module:Class', or a subclass of fl_mqtt.Task"
    ):
        passed_task(task)
