"""The JavaScript edge of ``examples/node-edge``, with the npm packages of its lock file."""

from __future__ import annotations

import shutil
from pathlib import Path

from fl_shared.data.digits import DIGITS
from tests.support import npm
from tests.support.programs import Program

SOURCE = Path(__file__).parents[2] / "examples" / "node-edge"
VECTORS = Path(__file__).parents[2] / "docs" / "vectors"


def with_packages(directory: Path) -> Path:
    """A copy of the example below ``directory``, beside its packages. Skips the test where npm cannot install them."""
    packages = npm.installed(SOURCE) / "node_modules"
    copy = directory / "node-edge"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(packages)
    return copy


def node_edge(copy: Path, name: str, *arguments: str, data: Path = DIGITS, shared: bool = True) -> Program:
    """Starts ``node src/node.js`` in a copy of `with_packages`.

    ``data``: the file with the examples. ``shared``: all edges have it.
    """
    where = ("--data", str(data), *(["--shared"] if shared else []), "--state", str(copy / "state"))
    return Program(copy / name, shutil.which("node") or "", str(copy / "src/node.js"), *where, *arguments)
