"""What an edge says of where it runs: `docs/protocol.md`, 4.13."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import pytest

from fl_edge.runtime import environment
from fl_edge.runtime.environment import environment_of


def test_it_names_what_computes() -> None:
    torch = f"torch {version('torch')}"
    assert environment_of("digits", light=False).library == torch
    assert environment_of(None, light=False).library == torch
    assert environment_of("digits-mlp", light=True).library == f"numpy {version('numpy')}"
    assert environment_of("synthetic-50", light=False).library == f"numpy {version('numpy')}"


def test_it_names_the_machine() -> None:
    found = environment_of("digits", light=False)
    assert found.python == platform.python_version()
    assert found.platform == f"{platform.system()} {platform.machine()}"
    assert found.memory is not None
    assert found.memory % 2**26 == 0
    assert abs(found.memory - os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) <= 2**25
    assert found.cores


def test_an_odd_system_is_described_as_far_as_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(environment, "version", unknown)
    monkeypatch.setattr(platform, "system", lambda: "Süd\n" * 100)
    monkeypatch.setattr(platform, "python_version", lambda: "")
    monkeypatch.setattr(os, "sysconf", lambda _: -1)
    found = environment_of(None, light=False)
    assert (found.fl_mqtt, found.python, found.library, found.memory) == (None, None, None, 0)
    assert found.platform == "S?d?" * 12
    assert found.computes == f"unknown software on {found.platform}"
