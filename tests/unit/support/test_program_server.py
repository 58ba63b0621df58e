"""A forked program is as one that its console script begins."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.program_server import ForkedProgram, server

pytestmark = pytest.mark.skipif(not programs.FORKED, reason="programs are forked on Linux only")

MISTAKEN = ("fl-aggregator", "start", "--lr", "nonsense", "--config", "here.toml")


def test_it_says_and_returns_the_same_in_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.toml").write_text("rounds = 'many'\n")
    forked = programs.run(*MISTAKEN, cwd=tmp_path)
    monkeypatch.setattr(programs, "FORKED", False)
    began = programs.run(*MISTAKEN, cwd=tmp_path)
    assert (forked.returncode, forked.stdout, forked.stderr) == (2, "", began.stderr)
    assert began.returncode == 2


def test_only_ours_is_forked_and_only_in_an_environment_like_the_servers() -> None:
    ours = programs.program_of("fl-edge")
    assert server().can_start(ours, {**os.environ, "FL_PREFIX": "x"})
    assert not server().can_start(ours, {**os.environ, "PYTHONHASHSEED": "7"})
    assert not server().can_start(programs.program_of("mosquitto"), os.environ)


def test_a_directory_that_is_searched_first_may_add_modules_but_hide_none(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    ours, environment = programs.program_of("fl-edge"), {**os.environ, "PYTHONPATH": path}
    (tmp_path / "new_module.py").touch()
    assert server().can_start(ours, environment)
    (tmp_path / "json.py").touch()
    assert not server().can_start(ours, environment)
    assert not server().can_start(ours, {**os.environ, "PYTHONPATH": str(tmp_path)})


def test_a_signal_ends_it(tmp_path: Path) -> None:
    command = [
        *programs.program_of("fl-edge"),
        "--id",
        "0",
        "--broker",
        "mqtt://127.0.0.1:1",
        "--wait",
        "600",
    ]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = programs.begin(command, None, out, err, tmp_path)
    assert isinstance(process, ForkedProgram)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
