"""``docs/tasks.md`` names what there is."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

pytest.importorskip("torch")
from fl_edge.tasks.task import Task, TrainingDefaults

TEXT = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def test_what_is_called_stable_can_be_imported() -> None:
    promises = TEXT.partition("## What stays stable")[2].partition(": ")[2]
    groups = re.findall(r"([^()]*)\(`([\w.]+)`[^()]*\)", re.sub(r"`(\w+)\(…[^`]*`", r"`\1`", promises))
    names = [(module, name) for before, module in groups for name in re.findall(r"`(\w+)`", before)]
    assert len(names) >= 20
    assert [
        (module, name) for module, name in names if not hasattr(importlib.import_module(module), name)
    ] == []


def test_the_members_of_a_task_are_those_it_has() -> None:
    members = re.findall(r"^\| `(\w+)", TEXT, re.MULTILINE)
    assert len(members) == 10
    assert [name for name in members if not hasattr(Task, name)] == []
    needed = TEXT.partition("are needed, all else may be left out")[0].rpartition("\n\n")[2]
    assert set(re.findall(r"`(\w+)`", needed)) == Task.__abstractmethods__
    defaults = TrainingDefaults()
    assert f"({defaults.epochs}, {defaults.batch_size}, {defaults.lr:g}, {defaults.momentum:g})" in TEXT
