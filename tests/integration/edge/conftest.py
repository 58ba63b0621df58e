"""``fl-edge`` for each test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.edge_process import Start


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``fl-edge`` with these arguments; what it says goes to ``edge-N.log`` in the test's directory."""
    running: list[programs.Process] = []

    def begin(url: str, prefix: str, *arguments: str) -> programs.Process:
        command = [*programs.program_of("fl-edge"), "--broker", url, "--prefix", prefix, "--keepalive", "2"]
        with (
            (tmp_path / f"edge-{len(running)}.out").open("wb") as out,
            (tmp_path / f"edge-{len(running)}.log").open("wb") as log,
        ):
            process = programs.begin([*command, *arguments], None, out, log, tmp_path)
        running.append(process)
        return process

    yield begin
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
