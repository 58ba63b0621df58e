"""The JavaScript edge of ``examples/node-edge``, with the npm packages of its lock file."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from fl_shared.data.digits import DIGITS
from tests.support import npm
from tests.support.wait import PATIENCE

SOURCE = Path(__file__).parents[2] / "examples" / "node-edge"
VECTORS = Path(__file__).parents[2] / "docs" / "vectors"


def with_packages(directory: Path) -> Path:
    """A copy of the example below ``directory``, beside its packages. Skips the test where npm cannot install them."""
    packages = npm.installed(SOURCE) / "node_modules"
    copy = directory / "node-edge"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(packages)
    return copy


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
