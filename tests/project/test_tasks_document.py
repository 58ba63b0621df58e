"""``docs/tasks.md`` names what there is."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from fl_edge.data import datasets
from fl_edge.tasks import digits_mlp
from fl_edge.tasks.digits import DigitsTask
from fl_edge.tasks.digits_mlp import DigitsMlpTask
from fl_edge.tasks.task import Task, TrainingDefaults
from fl_shared.data.digits import DIGITS

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
    assert len(members) == 11
    assert [name for name in members if not hasattr(Task, name)] == []
    needed = TEXT.partition("are needed, all else may be left out")[0].rpartition("\n\n")[2]
    assert set(re.findall(r"`(\w+)`", needed)) == Task.__abstractmethods__
    defaults = TrainingDefaults()
    assert f"({defaults.epochs}, {defaults.batch_size}, {defaults.lr:g}, {defaults.momentum:g})" in TEXT


def test_the_models_for_other_languages_are_ours() -> None:
    text = TEXT.partition("## Models for edges in other languages")[2].partition("\n## ")[0]
    for task in (DigitsTask(), DigitsMlpTask()):
        arrays = task.model(0).state_dict()
        values = f"{sum(array.numel() for array in arrays.values()):,}"
        item = next(one for one in text.split("\n- ") if one.startswith(f"**`{task.name}`**"))
        assert f"{values} parameters" in item
        assert all(f"`{name.partition('.')[0]}" in item for name in arrays)
    assert f"minus {digits_mlp.MEAN:.4f}, divided by {digits_mlp.DEVIATION:.4f}" in text
    assert (f"{DigitsTask.mean[0]}", f"{DigitsTask.deviation[0]}") == ("4.8767", "6.0111")
    rows = np.loadtxt(DIGITS, np.uint8, delimiter=",")
    order = np.random.default_rng(np.random.SeedSequence(1797)).permutation(len(rows))
    assert (rows[np.sort(order[:359]), -1] == datasets.read("digits", "test").labels).all()
