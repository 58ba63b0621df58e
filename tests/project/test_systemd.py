"""``packaging/systemd``: systemd takes the units, and they start our programs as they are."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.programs import BIN

UNITS = sorted((Path(__file__).parents[2] / "packaging" / "systemd").glob("*.service"))
WORST_EXPOSURE = 1.5
"""Of 10, as ``systemd-analyze security`` counts; both have 1.4."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="THE UNITS ARE NOT CHECKED: no systemd-analyze"
)
each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def command(unit: Path) -> str:
    """What the unit starts."""
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read(unit, encoding="utf-8")
    return parsed["Service"]["ExecStart"]


@needs_systemd
@each_unit
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name  # it looks whether the program is there
    copy.write_text(unit.read_text(encoding="utf-8").replace("/opt/fl-mqtt/bin", str(BIN)))
    done = analyze("verify", "--man=no", copy)
    assert (done.returncode, done.stderr) == (0, "")
    copy.write_text(copy.read_text().replace("DynamicUser=yes", "DynamicUser=perhaps"))
    assert "bad unit file setting" in analyze("verify", "--man=no", copy).stderr, (
        "it does complain of what is wrong"
    )


@needs_systemd
@each_unit
def test_the_unit_is_not_exposed(unit: Path) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", f"--threshold={WORST_EXPOSURE * 10:.0f}", unit)
    assert done.returncode == 0, done.stdout


def started(unit: Path, directory: Path) -> str:
    """The arguments with which the unit starts the program, in a state directory."""
    program = directory / "bin" / unit.name.removesuffix("@.service")
    program.parent.mkdir(exist_ok=True)
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    line = command(unit).replace("/opt/fl-mqtt/bin", str(program.parent)).replace("$$", "$")
    done = subprocess.run(
        line,
        shell=True,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ,
    )
    return done.stdout.strip()


def test_the_list_of_revoked_kits_is_where_it_can_change() -> None:
    """Credentials are copied when a service starts: what lies beside the kit is never seen to change."""
    of_aggregator, _ = UNITS
    lines = of_aggregator.read_text(encoding="utf-8").splitlines()
    (directory,) = (line.partition("=")[2] for line in lines if line.startswith("WorkingDirectory="))
    (revoked,) = (line.partition("FL_REVOKED=")[2] for line in lines if "FL_REVOKED=" in line)
    assert revoked == f"{directory}/revoked.json"


def test_an_aggregator_begins_its_run_and_resumes_it_the_next_time(tmp_path: Path) -> None:
    of_aggregator, of_edge = UNITS
    assert started(of_aggregator, tmp_path) == "start --run-dir run"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    assert started(of_aggregator, tmp_path) == "start --resume run"
    assert started(of_edge, tmp_path) == "--state-dir state"


def test_the_page_shows_the_edges_unit() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "services.md").read_text(encoding="utf-8")
    unit = next(unit for unit in UNITS if unit.name == "fl-edge@.service")
    assert f"```ini\n{unit.read_text(encoding='utf-8')}```" in page
