"""Tasks are found by name: the built-in ones, and those of other distributions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
from fl_edge.errors import TaskOptionsError, UnknownTaskError
from fl_edge.tasks.registry import light_names, load_task, names
from fl_edge.training import local_training

pytestmark = pytest.mark.edge


@pytest.fixture(autouse=True)
def _settled() -> None:
    local_training.configure_torch()


def test_names_are_known_without_importing_torch() -> None:
    code = (
        "import sys, fl_edge.tasks.registry as t; print(*t.names()); "
        "print({'torch', 'PIL'} & set(sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = said.stdout.splitlines()
    assert first.split()[:4] == ["digits", "mnist", "fashion-mnist", "cifar10"]
    assert second == "set()"


def test_an_unknown_task_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        UnknownTaskError, match=r"'nope' is unknown here, expected one of: digits, mnist, fash"
    ):
        load_task("nope")
    with pytest.raises(
        UnknownTaskError, match=r"'tabluar' is unknown here \(did you mean 'tabular'\?\), exp"
    ):
        load_task("tabluar")


@pytest.mark.parametrize(("name", "hint"), [("evap", "evap:CLASS"), ("evap.Evap", "evap:Evap")])
def test_a_module_here_is_proposed(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evap.py").touch()
    with pytest.raises(UnknownTaskError) as raised:
        load_task(name)
    assert f"{name!r} is unknown here (did you mean '{hint}'?), expected one of: digits" in str(raised.value)
    assert str(raised.value).endswith(", series, synthetic-N, or module:Class")


@pytest.mark.parametrize("name", ["evap.py:Evap", "../m/evap:Evap", "/m/evap.py:Evap"])
def test_a_file_is_no_module(name: str) -> None:
    with pytest.raises(UnknownTaskError) as raised:
        load_task(name)
    assert str(raised.value) == (
        f"task {name!r}: expected package.module:Class, for example 'evap:Evap' in the directory of evap.py"
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("a = 1\ndef f()\n", "SyntaxError: expected ':' (evap.py, line 2)"),
        ("a = 1\nb = a / 0\n", "ZeroDivisionError: division by zero (evap.py, line 2)"),
        ("import no_such\n", "ModuleNotFoundError: No module named 'no_such' (evap.py, line 1)"),
        (
            "import json\njson.loads('')\n",
            "JSONDecodeError: Expecting value: line 1 column 1 (char 0) (evap.py, line 2)",
        ),
        ("a = 1\n", "AttributeError: module 'evap' has no attribute 'Evap'"),
    ],
)
def test_a_module_that_fails_is_told_with_its_own_line(
    code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evap.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evap", raising=False)
    with pytest.raises(UnknownTaskError) as raised:
        load_task("evap:Evap")
    monkeypatch.delitem(sys.modules, "evap", raising=False)
    assert str(raised.value) == f"task 'evap:Evap' cannot be loaded: {reason}"


PLUG_IN = """
from pydantic import Field

from fl_edge.tasks.digits import DigitsTask
from fl_edge.tasks.task import TaskOptions

class Good(DigitsTask):
    name = "good"

class Broken(DigitsTask):
    def __init__(self, options):
        raise OSError("no licence")

class Choices(TaskOptions):
    target: str
    hidden: int = Field(default=64, ge=1)

class Chosen(DigitsTask):
    Options = Choices

a_list = [1]
"""


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another distribution with tasks, as pip would install it."""
    (tmp_path / "tasks_of_others.py").write_text(PLUG_IN)
    info = tmp_path / "tasks_of_others-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tasks-of-others\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[fl_mqtt.tasks]\ngood = tasks_of_others:Good\nbroken = tasks_of_others:Broken\n"
        "gone = tasks_of_others:Gone\nodd = tasks_of_others:a_list\ndigits = tasks_of_others:Broken\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("plug_in")
def test_other_distributions_add_tasks() -> None:
    assert names()[4:] == ("digits-mlp", "tabular", "images", "series", "broken", "gone", "good", "odd")
    assert light_names() == tuple(name for name in names()[4:] if name != "images")
    assert load_task("good").name == "good"
    # What is built in cannot be replaced.
    assert type(load_task("digits")).__module__ == "fl_edge.tasks.digits"


@pytest.mark.usefixtures("plug_in")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "'broken' cannot be created: OSError: no licence \\(tasks_of_others.py, line 12\\)$"),
        ("gone", r"'gone' \(tasks_of_others:Gone\) cannot be loaded: AttributeError"),
        ("odd", r"'odd' is of the type list, expected a subclass of fl_edge.tasks.task.Task"),
    ],
)
def test_a_task_that_cannot_be_loaded_says_why(name: str, message: str) -> None:
    with pytest.raises(UnknownTaskError, match=message):
        load_task(name)


@pytest.mark.usefixtures("plug_in")
def test_a_class_is_found_by_its_module_and_gets_the_options_of_the_run() -> None:
    task = load_task("tasks_of_others:Chosen?hidden=8&target=a%20%26b")
    assert task.options.model_dump() == {"target": "a &b", "hidden": 8}
    assert task.name == "digits"


@pytest.mark.usefixtures("plug_in")
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "option 'target' is missing: --task-option target=VALUE"),
        (
            "?target=x&hiden=3",
            r"option 'hiden' is unknown \(did you mean 'hidden'\?\), expected one of: target, hidden",
        ),
        ("?target=x&hidden=0", "option hidden=0: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_option_is_named(query: str, message: str) -> None:
    with pytest.raises(TaskOptionsError, match=message):
        load_task(f"tasks_of_others:Chosen{query}")
