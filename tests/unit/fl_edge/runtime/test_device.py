"""The device that edges train on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.command_line import is_one_clear_line, run_here


def test_a_device_that_is_not_there_ends_the_edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a user's mistake, told at the start; here an interpreter without a GPU is played."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho cpu\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    done = run_here(tmp_path, ("fl-edge", "--id", "1", "--device", "cuda"), {})
    is_one_clear_line(done, "--device cuda: torch finds none on this machine; expected cpu or auto")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    done = run_here(tmp_path, ("fl-edge", "--id", "1", "--device", "auto"), {})
    is_one_clear_line(done, "--device auto: torch cannot tell which devices there are", "use cpu or cuda")
