"""The measured lines that are committed: ``results/NAME.jsonl`` has one JSON object a line, the newest last."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).parent / "results"


def path_of(name: str) -> Path:
    """The file of a benchmark."""
    return RESULTS / f"{name}.jsonl"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines so far; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_line(line: Mapping[str, Any], path: Path) -> None:
    """Appends a line."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def commit() -> str:
    """The commit of this clone; empty outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def report(line: Mapping[str, Any], *, write: bool) -> None:
    """Prints a line, and with ``write`` appends it to the file of its ``benchmark``, with the commit."""
    print(json.dumps(line, ensure_ascii=False))
    if write:
        write_line({**line, "commit": commit()}, path_of(line["benchmark"]))
