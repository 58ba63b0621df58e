"""Commands that users paste are named as the program that prints them was called."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fl_shared.system.invocation import aggregator_command, edge_command, install_command


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs' directory of an environment, which is not on the path."""
    programs = tmp_path / "my venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("fl-aggregator", "fl-edge", "fl-mqtt", "python"):
        (programs / name).touch(mode=0o755)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "prefix", str(programs.parent))
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.delenv("UV", raising=False)
    return programs


def test_a_program_on_the_path_is_called_by_its_name(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(venv))
    monkeypatch.setattr(sys, "argv", [str(venv / "fl-aggregator"), "start"])
    assert aggregator_command("report", "my run") == "fl-aggregator report 'my run'"
    monkeypatch.setattr(sys, "argv", [str(venv / "fl-mqtt")])
    assert aggregator_command("report", Path("run")) == "fl-mqtt aggregator report run"
    assert aggregator_command("report", "run", extra="report") == (
        "fl-mqtt aggregator report run (first: pip install 'fl-mqtt[report]')"
    )
    assert edge_command("new-task", "DIR") == "fl-mqtt edge new-task DIR"
    assert install_command("report") == "pip install 'fl-mqtt[report]'"


def test_one_that_is_not_on_the_path_is_called_where_it_is(
    venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(venv / "fl-edge")])
    assert aggregator_command("doctor") == f"'{venv}/fl-aggregator' doctor"
    monkeypatch.chdir(venv.parent)
    monkeypatch.setattr(sys, "argv", ["bin/fl-mqtt"])
    assert aggregator_command("doctor") == "bin/fl-mqtt aggregator doctor"


def test_a_module_is_called_as_one(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="fl_aggregator.__main__"))
    monkeypatch.setattr(sys, "argv", ["…/__main__.py"])
    assert aggregator_command("doctor") == f"'{venv}/python' -m fl_aggregator doctor"
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="fl_mqtt.__main__"))
    assert aggregator_command("doctor") == f"'{venv}/python' -m fl_mqtt aggregator doctor"
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="pytest.__main__"))
    assert aggregator_command("doctor") == "fl-aggregator doctor", "a program of the user"


@pytest.mark.parametrize(
    ("origin", "source"), [(None, "fl-mqtt"), ('{"url": "file:///x/fl_mqtt-1.whl"}', "/x/fl_mqtt-1.whl")]
)
def test_uvx_starts_what_it_has_started(
    venv: Path, monkeypatch: pytest.MonkeyPatch, origin: str | None, source: str
) -> None:
    monkeypatch.setenv("UV", "/usr/bin/uv")
    monkeypatch.setenv("PATH", str(venv))  # uvx adds it for the program alone
    monkeypatch.setattr(sys, "prefix", "/root/.cache/uv/archive-v0/N0OEiarmh2xXDz0l")
    monkeypatch.setattr(
        importlib.metadata, "distribution", lambda _: SimpleNamespace(read_text=lambda _: origin)
    )
    monkeypatch.setattr(sys, "argv", [str(venv / "fl-mqtt")])
    of_file = "" if origin is None else f"--from {source} "
    assert aggregator_command("watch") == f"uvx {of_file}fl-mqtt aggregator watch"
    assert aggregator_command("report", "run", extra="report") == (
        f"uvx --from '{source}[report]' fl-mqtt aggregator report run"
    )
    monkeypatch.setattr(sys, "argv", [str(venv / "fl-aggregator")])
    assert aggregator_command("watch") == f"uvx --from {source} fl-aggregator watch"
    assert install_command("lite") == f"uvx --from '{source}[lite]' fl-mqtt"
