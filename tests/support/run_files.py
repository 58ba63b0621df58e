"""Writes the files of runs, and reads the page of a report."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from fl_aggregator.cli.main import cli

SETTINGS = {"task": "digits", "clients": 4, "rounds": 3, "per_round": 2, "partition": "shards", "lr": 0.05}


def line(number: int, **changes: Any) -> dict[str, Any]:
    """A round's line in the history, as the aggregator writes it."""
    return {
        "round": number,
        "outcome": "committed",
        "reason": None,
        "version": number,
        "digest": "a" * 64,
        "cohort": ["0", "1"],
        "participants": ["0", "1"],
        "missing": {},
        "refused": {},
        "examples": 20,
        "metrics": {"accuracy": 0.2 * number, "loss": 1.0 / number, "train_loss": 0.5},
        "declared": [{"name": "accuracy", "unit": "%", "minimum": 0.0, "maximum": 1.0}],
        "split": "test",
        "confusion": {"labels": ["cat", "dog"], "counts": [[9, 1], [number, 7]]},
        "seconds": {"selecting": 0.5, "collecting": 1.5, "aggregating": 0.25, "evaluating": 9.0},
        "bytes": {"up": 1_500_000, "down": 500_000},
    } | changes


def accepted(client: str, number: int, accuracy: float) -> str:
    """A line of the journal: an update was accepted, and its model has this accuracy on the edge's holdout."""
    update = {
        "client": client,
        "round": number,
        "examples": 10,
        "size": 2048,
        "after": {"accuracy": accuracy},
    }
    return json.dumps({"event": "UpdateStored", "now": 1.0, "update": update}, separators=(",", ":"))


def write(
    directory: Path, lines: list[Any], *, record: dict[str, Any] | None = None, journal: str = ""
) -> Path:
    """A run's directory. ``lines`` that are text are written as they are."""
    directory.mkdir()
    whole = {
        "run": "3f9a1c0b7e22",
        "incarnation": 1,
        "started": "2030-01-01T00:00:00+00:00",
        "settings": SETTINGS,
    }
    (directory / "run.json").write_text(json.dumps(whole | (record or {})))
    rows = (row if isinstance(row, str) else json.dumps(row) for row in lines)
    (directory / "history.jsonl").write_text("".join(f"{row}\n" for row in rows))
    (directory / "journal.jsonl").write_text(journal)
    return directory


def report(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def page_of(tmp_path: Path, *directories: Path) -> str:
    done = report(*directories, "--out", tmp_path / "out.html")
    assert done.exit_code == 0, done.output
    return (tmp_path / "out.html").read_text()


class Outline(html.parser.HTMLParser):
    """The elements of a page and its visible text; complains of what is not well nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attrs)))
        if name not in ("meta", "br"):
            self._open.append(name)

    def handle_startendtag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attrs)))

    def handle_endtag(self, name: str) -> None:
        assert self._open.pop() == name

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"
