"""The JavaScript edge of ``examples/node-edge``, with the npm packages of its lock file."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from fl_shared.data.digits import DIGITS
from tests.support.wait import PATIENCE

SOURCE = Path(__file__).parents[2] / "examples" / "node-edge"
VECTORS = Path(__file__).parents[2] / "docs" / "vectors"
_PACKAGES = ("package.json", "package-lock.json")


def with_packages(directory: Path) -> Path:
    """A copy of the example below ``directory``, beside its packages. Skips the test where npm cannot fetch them."""
    if missing := [name for name in ("node", "npm") if shutil.which(name) is None]:
        pytest.skip(f"{' and '.join(missing)}: not installed")
    copy = directory / "node-edge"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(_installed() / "node_modules")
    return copy


def _installed() -> Path:
    """The packages, fetched once for each lock file, outside the tree."""
    content = b"".join((SOURCE / name).read_bytes() for name in _PACKAGES)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fl-mqtt-tests"
    ready = root / f"node-edge-{hashlib.sha256(content).hexdigest()[:16]}"
    if ready.is_dir():
        return ready
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name:
        fresh = Path(name) / "fresh"
        fresh.mkdir()
        for file in _PACKAGES:
            shutil.copy(SOURCE / file, fresh)
        command = ["npm", "ci", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm cannot fetch the packages here: {done.stderr.strip()[-200:]}")
        if not ready.is_dir():  # another process may have been faster
            fresh.rename(ready)
    return ready


class NodeEdge:
    """``node src/node.js`` in a copy of `with_packages`; killed when the ``with`` block ends.

    ``data``: the file with the examples. ``shared``: all edges have it.
    """

    def __init__(
        self, copy: Path, name: str, *arguments: str, data: Path = DIGITS, shared: bool = True
    ) -> None:
        self._log = copy / f"{name}.txt"
        where = ("--data", str(data), *(["--shared"] if shared else []), "--state", str(copy / "state"))
        command = ["node", "src/node.js", *where, *arguments]
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                command, cwd=copy, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        return self._process.wait(30 * PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
