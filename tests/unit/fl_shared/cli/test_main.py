"""What a program does besides its command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


ECHO = """
import sys, click
from fl_shared.cli.main import run_program
def command():
    for number in range(10_000):
        click.echo(f"a line on standard output \\udcff {number}")
        click.echo("one on standard error", err=True)
run_program(click.Command("x", callback=command), "x")
"""


@pytest.mark.parametrize("redirected", [">&-", "2>&-", ">&- 2>&-", "2>&1 | true", "| head -n 1"])
def test_nobody_has_to_read_what_it_says(redirected: str, tmp_path: Path) -> None:
    """The status is the program's, not that of the pipe."""
    (tmp_path / "echo.py").write_text(ECHO)
    script = f"set -o pipefail; {sys.executable} {tmp_path / 'echo.py'} {redirected}"
    done = subprocess.run(["bash", "-c", script], check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


HANGUP = """
import os, signal, click
from fl_shared.cli.main import run_program
def command():
    os.kill(os.getpid(), signal.SIGHUP)
    signal.sigtimedwait([signal.SIGUSR1], IGNORED)
run_program(click.Command("x", callback=command), "x")
"""


@pytest.mark.parametrize(("before", "code", "seconds"), [("SIG_DFL", 130, "50"), ("SIG_IGN", 0, "0.2")])
def test_a_terminal_that_is_closed_interrupts_unless_nohup_says_otherwise(
    before: str, code: int, seconds: str
) -> None:
    # The tests themselves may run under nohup.
    program = HANGUP.replace("def command", f"signal.signal(signal.SIGHUP, signal.{before})\ndef command")
    program = program.replace("IGNORED", seconds)
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
