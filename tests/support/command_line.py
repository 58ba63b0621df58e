"""Runs a command, and checks that its error is one clear line."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fl_aggregator.cli.main import cli as fl_aggregator
from fl_edge.cli import command as fl_edge
from fl_shared.cli.main import mistake_line
from fl_shared.errors import ProgramError
from tests.support import programs

AT_ONCE = 15.0
"""Seconds, for a program that has all of a slow machine's imports before it."""

TINY = ("--task", "synthetic-50", "--clients", "1", "--per-round", "1", "--rounds", "1", "--holdout", "0")


@dataclass(frozen=True)
class Mistake:
    """``{BROKER}`` in an argument is the URL of a broker that is there, ``{HERE}`` the working directory."""

    arguments: tuple[str, ...]
    says: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def start(*arguments: str, says: tuple[str, ...], **environment: str) -> Mistake:
    common = ("fl-aggregator", "start", "--broker", "{BROKER}", "--run-dir", "{HERE}/run", "--wait", "1")
    return Mistake((*common, *arguments), says, environment)


def simulate(*arguments: str, says: tuple[str, ...], **environment: str) -> Mistake:
    common = ("fl-aggregator", "simulate", "--run-dir", "{HERE}/run", "--clients", "3", "--per-round", "2")
    return Mistake((*common, *arguments), says, environment)


def edge(*arguments: str, says: tuple[str, ...], **environment: str) -> Mistake:
    return Mistake(("fl-edge", *arguments), says, environment)


def run_here(
    here: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """As `run`, but in this process, which has imported everything already."""
    command = {"fl-aggregator": fl_aggregator, "fl-edge": fl_edge}[arguments[0]]
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(here):
        for name in os.environ:
            if name.startswith("FL_"):
                patch.delenv(name)
        for name in ("HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(here / "empty"))
        result = CliRunner().invoke(
            command, arguments[1:], env=environment, standalone_mode=False, prog_name=arguments[0]
        )
    if (error := result.exception) is None:
        return subprocess.CompletedProcess(arguments, result.return_value, result.stdout, result.stderr)
    assert isinstance(error, click.ClickException | ProgramError), error
    said = result.stderr + mistake_line(error, arguments[0])
    return subprocess.CompletedProcess(arguments, error.exit_code, result.stdout, said)


def run(
    here: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FL_")}
    # Whoever has data sets in the usual places is not to notice.
    kept |= {"HOME": str(here / "empty"), "XDG_CACHE_HOME": str(here / "empty")}
    return programs.run(*arguments, cwd=here, environment={**kept, **environment})


def is_one_clear_line(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Usage:" not in done.stderr
    last = done.stderr.splitlines()[-1]
    for words in says:
        assert words in last, done.stderr


def everything(directory: Path) -> list[str]:
    """But what a search for data sets leaves."""
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if "MNIST" not in p.parts)
