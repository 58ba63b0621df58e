"""The demo does what the installed packages allow."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from fl_mqtt.cli.demo import PICTURE, demo_arguments


@pytest.mark.parametrize(
    ("missing", "arguments", "said"),
    [
        (set(), ["--task", "digits", "--predict", str(PICTURE)], ""),
        ({"torch", "torchvision"}, ["--task", "digits-mlp", "--predict", str(PICTURE)], ""),
        ({"torchvision"}, ["--task", "digits-mlp", "--predict", str(PICTURE)], ""),
        ({"torch", "torchvision", "PIL"}, ["--task", "digits-mlp"], "pip install 'fl-mqtt[lite]'"),
    ],
)
def test_without_a_package_it_does_less(
    missing: set[str],
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, *more: Any) -> Any:
        return None if name in missing else real(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert demo_arguments() == arguments
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert bool(captured.err) == bool(said)


def test_its_picture_is_in_the_package() -> None:
    assert PICTURE.read_bytes().startswith(b"\x89PNG")
