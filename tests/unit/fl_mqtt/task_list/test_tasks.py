"""``fl-aggregator tasks``."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
from fl_edge.tasks import registry
from fl_mqtt.task_list.cli import tasks
from fl_shared.errors import UserError
from tests.support.schemas import checked

pytestmark = pytest.mark.edge


def test_all_tasks_are_listed() -> None:
    output = CliRunner().invoke(tasks, []).output
    lines = {line.split()[0] for line in output.splitlines() if line and not line.startswith(" ")}
    assert set(registry.names()) <= lines
    assert "Small handwritten digits" in output


def test_one_task_with_its_options() -> None:
    output = CliRunner().invoke(tasks, ["tabular"]).output
    assert "--task-option target=…" in output
    assert "(required)" in output
    found = checked("fl-aggregator tasks", CliRunner().invoke(tasks, ["digits-mlp", "--json"]).output)
    assert [(option["name"], option["default"]) for option in found["options"]] == [("hidden", 64)]
    assert found["defaults"].keys() == {"epochs", "batch_size", "lr", "momentum"}


def test_an_unknown_task_is_a_users_mistake() -> None:
    result = CliRunner().invoke(tasks, ["nope"])
    assert isinstance(result.exception, UserError)
    assert "task 'nope' is unknown here" in str(result.exception)
