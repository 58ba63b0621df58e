"""Every program raises its own limit of open files."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, click
from fl_shared.cli.main import run_program
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
run_program(click.Command("x", callback=lambda: int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 64)), "x")
"""


def test_the_soft_limit_becomes_the_hard_one() -> None:
    assert subprocess.run([sys.executable, "-c", PROGRAM], check=False, timeout=60).returncode == 0
