"""The measured lines that are committed: ``results/NAME.jsonl`` has one JSON object a line, the newest last."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

CLONE: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = CLONE / "benchmarks" / "results"


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
    """The commit of this clone; empty outside of one. Raises ``RuntimeError`` if the measured code is elsewhere."""
    for name in ("fl_aggregator", "fl_edge", "fl_mqtt", "fl_shared"):
        spec = find_spec(name)
        if spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(CLONE):
            where = None if spec is None else spec.origin
            raise RuntimeError(
                f"{name} is {where}, expected a file in {CLONE}: install the packages of this clone"
            )
    command = ["git", "-C", str(CLONE), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def report(line: Mapping[str, Any], *, write: bool) -> None:
    """Prints a line, and with ``write`` appends it to the file of its ``benchmark``, with the commit."""
    print(json.dumps(line, ensure_ascii=False))
    if write:
        write_line({**line, "commit": commit()}, path_of(line["benchmark"]))
