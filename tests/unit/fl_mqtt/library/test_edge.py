"""Keyword arguments of an edge become those of ``fl-edge``."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_mqtt import Edge
from fl_mqtt.library.edge import arguments_of


def test_values_flags_and_lists() -> None:
    options = {
        "id": 7,
        "data": Path("x"),
        "role": ("train", "predict"),
        "seal": True,
        "light": False,
        "wait": None,
    }
    assert arguments_of(options) == ["--id", "7", "--data", "x", "--role", "train,predict", "--seal"]


def test_an_option_that_does_not_exist_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'rol'. Did you mean 'role'\?"):
        Edge(7, rol="train")


def test_what_has_not_been_started_cannot_be_waited_for() -> None:
    edge = Edge(7)
    edge.stop()
    assert edge.log == ""
    with pytest.raises(RuntimeError, match="has not been started"):
        edge.wait()
