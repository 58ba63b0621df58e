"""Packages from npm for the tests of an example, in a cache outside the tree."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fl-mqtt-tests"
INSTALL_TIMEOUT = 400.0


def installed(example: Path) -> Path:
    """Returns a directory with the ``node_modules`` of the lock file of ``example``. Skips the test without npm.

    Nothing of a package is run while it is installed.
    """
    if missing := [name for name in ("npm", "node") if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(missing)}: not installed")
    files = [example / name for name in ("package.json", "package-lock.json")]
    key = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
    directory = CACHE / f"{example.name}-{key}"
    done = directory / "installed"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test may be installing them
        if not done.exists():
            for file in files:
                shutil.copy(file, directory)
            command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            ended = subprocess.run(
                command, cwd=directory, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False
            )
            if ended.returncode != 0:
                pytest.skip(
                    f"npm cannot install {example.name}'s packages here: {ended.stderr.strip()[-200:]}"
                )
            done.touch()
    return directory
