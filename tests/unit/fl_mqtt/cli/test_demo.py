"""The demo does what the installed packages allow."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from fl_mqtt.cli.demo import COARSE_PICTURE, PICTURE, demo_arguments


@pytest.mark.parametrize(
    ("missing", "task", "picture"),
    [
        (set(), "digits", PICTURE),
        ({"torch", "torchvision"}, "digits-mlp", PICTURE),
        ({"torchvision"}, "digits-mlp", PICTURE),
        ({"torch", "torchvision", "PIL"}, "digits-mlp", COARSE_PICTURE),
    ],
)
def test_it_takes_a_task_and_a_picture_for_which_no_package_is_missing(
    missing: set[str], task: str, picture: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, *more: Any) -> Any:
        return None if name in missing else real(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert demo_arguments() == ["--task", task, "--predict", str(picture)]
