"""What a program does besides its command."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import threading, click
from fl_shared.cli.main import run_program

def command():
    threading.Thread(target=TARGET).start()
    threading.Event().wait(TIMEOUT)

exec("def ours(): raise IndexError('no job')", module := {"__name__": "fl_edge.some_module"})
exec("def theirs(): raise IndexError('no job')", others := {"__name__": "some_library"})
run_program(click.Command("x", callback=command), "x")
"""


@pytest.mark.parametrize(
    ("target", "timeout", "code"), [("module['ours']", "600", 1), ("others['theirs']", "0.2", 0)]
)
def test_a_thread_of_ours_that_dies_ends_the_program(target: str, timeout: str, code: int) -> None:
    program = PROGRAM.replace("TARGET", target).replace("TIMEOUT", timeout)
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert "IndexError: no job" in done.stderr
