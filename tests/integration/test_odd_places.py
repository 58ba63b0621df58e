"""Where programs of others fail: a directory whose name is not UTF-8, no HOME, output that nobody reads."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
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


STRANGER = (
    "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
)  # fmt: skip
"""A user whom no passwd knows, as in a container with a random uid. He may read our interpreter wherever it is."""


def test_a_user_whom_no_passwd_knows(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with contextlib.suppress(PermissionError):
        os.chown(place, 12345, 12345)
    nobody = "import os, pwd\ntry: pwd.getpwuid(os.getuid())\nexcept KeyError: raise SystemExit(7)"
    words = (*STRANGER, sys.executable, "-c", nobody)
    if shutil.which("setpriv") is None or subprocess.run(words, check=False).returncode != 7:
        pytest.skip("programs cannot be run here as an unknown user (root may, with setpriv)")
    caches = "from fl_edge.data.datasets import cache_dir; print(cache_dir())"
    done = bash(
        place,
        f"unset XDG_CACHE_HOME\n{shlex.join((*STRANGER, sys.executable, '-c', caches))}\n"
        + shlex.join((*STRANGER, str(programs.BIN / "fl-aggregator"), "simulate", *TINY)),
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout.startswith(b".cache/fl-mqtt\n")
    (model,) = place.glob("**/model.safetensors")
    assert model.stat().st_uid == 12345
