"""Where programs of others fail: a directory whose name is not UTF-8, no HOME, output that nobody reads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.command_line import TINY

pytestmark = pytest.mark.broker


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / os.fsdecode(b"odd-\xff\xe9")
    directory.mkdir()
    return directory


def bash(place: Path, script: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a script whose status is that of the first program of a pipe that fails."""
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    environment["PATH"] = f"{programs.BIN}:{environment['PATH']}"
    return subprocess.run(
        ["bash", "-c", f"set -e -o pipefail\n{script}"],
        cwd=place, env=environment, capture_output=True, timeout=200, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_a_run_in_an_odd_place(place: Path) -> None:
    options = " ".join((*TINY, "--wait", "60", "--keepalive", "2"))
    done = bash(
        place,
        f"fl-aggregator simulate {options} --json --run-dir $PWD/run | head -n 1\n"
        "fl-aggregator report run --csv rounds.csv | head -n 0\n"
        "fl-aggregator report $PWD/run --out absolute.html >&-",
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout.startswith(b"broker: mqtt://127.0.0.1:")
    assert (place / "run" / "model.safetensors").is_file()
    assert (place / "rounds.csv").read_text().count("\n") == 2
    assert (place / "absolute.html").is_file()


def test_a_broker_reads_what_was_provisioned_in_an_odd_place(place: Path) -> None:
    done = bash(place, "fl-aggregator provision --edges 1 --broker-host localhost --out kits | head -n 1")
    assert done.returncode == 0, done.stderr
    configuration = (place / "kits" / "broker" / "mosquitto.conf").read_bytes()
    assert b"cafile " + os.fsencode(place) + b"/kits/broker/ca.pem\n" in configuration
