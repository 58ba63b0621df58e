"""``fl-edge`` for each test."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.edge_process import Start


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``fl-edge`` with these arguments; what it says goes to ``edge-N.log`` in the test's directory."""
    running: list[subprocess.Popen[str]] = []

    def begin(url: str, prefix: str, *arguments: str) -> subprocess.Popen[str]:
        log = (tmp_path / f"edge-{len(running)}.log").open("w")
        command = [sys.executable, "-m", "fl_edge", "--broker", url, "--prefix", prefix, "--keepalive", "2"]
        process = subprocess.Popen([*command, *arguments], cwd=tmp_path, stderr=log, text=True)
        running.append(process)
        return process

    yield begin
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
