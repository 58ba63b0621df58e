"""A run whose aggregator dies before an effect, is resumed, and must come to the model of one that did not die."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_aggregator.storage.checkpoint import model_sha256
from tests.support import programs
from tests.support.broker import Mosquitto

FOREVER = 1_000_000


@dataclass(frozen=True)
class Reference:
    """What every run has to come to."""

    model: str
    contributions: dict[int, dict[str, str]]
    effects: int


@dataclass
class Cluster:
    """A broker and three edges that stay, for one run after the other."""

    broker: Mosquitto
    fleet: programs.Program
    directory: Path
    run: tuple[str, ...]
    """The options of each run."""

    def crash(self, name: str, crash_before: int, *, again: bool = False) -> tuple[int, str]:
        """A start of a run (or of one ``again``) that dies; its exit code, and its crash report."""
        directory = self.directory / name
        directory.mkdir(exist_ok=again)
        note, path = directory / "note.txt", str(directory / "run")
        what = ("--resume", path) if again else (*self.run, "--run-dir", path)
        done = programs.run(
            "tests.support.crashing_aggregator", "start", *what, "--broker", self.broker.url,
            "--keepalive", programs.KEEPALIVE,
            environment={**os.environ, "CRASH_BEFORE_EFFECT": str(crash_before), "CRASH_REPORT": str(note)},
        )  # fmt: skip
        return done.returncode, note.read_text()

    def resume(self, name: str, *more: str) -> programs.Program:
        return programs.Program(
            self.directory / name / "again", "fl-aggregator", "start", "--resume",
            str(self.directory / name / "run"), "--keepalive", programs.KEEPALIVE, *more,
        )  # fmt: skip

    def model(self, name: str) -> str:
        return model_sha256(self.directory / name / "run" / "model.safetensors")


def events(directory: Path) -> list[dict[str, Any]]:
    journal = directory / "run" / "journal.jsonl"
    text = journal.read_text() if journal.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def contributions(directory: Path) -> dict[int, dict[str, str]]:
    """Which updates were accepted: each once."""
    kept = [event["update"] for event in events(directory) if event["event"] == "UpdateStored"]
    counts = Counter((update["round"], update["client"]) for update in kept)
    assert all(count == 1 for count in counts.values()), f"accepted twice: {counts}"
    found: dict[int, dict[str, str]] = {}
    for update in kept:
        found.setdefault(update["round"], {})[update["client"]] = update["digest"]
    return found


def undisturbed_run(cluster: Cluster) -> Reference:
    """One that does not die."""
    code, note = cluster.crash("undisturbed", FOREVER)
    assert code == 0, note
    directory = cluster.directory / "undisturbed"
    return Reference(cluster.model("undisturbed"), contributions(directory), int(note.split()[0]))


def dies_and_goes_on(cluster: Cluster, undisturbed: Reference, boundary: int, name: str = "at") -> str:
    """One boundary; what was about to happen there."""
    name = f"{name}-{boundary}"
    directory = cluster.directory / name
    code, note = cluster.crash(name, boundary)
    if code == 0:
        return "lives"  # what the network brings differs a little from run to run
    assert code == -signal.SIGKILL, note
    if not (directory / "run" / "journal.jsonl").exists():
        return note
    with cluster.resume(name, "--broker", cluster.broker.url) as again:
        assert again.wait(90) == 0, f"killed before effect {note}\n{again.output}"
    assert cluster.model(name) == undisturbed.model, f"killed before effect {note}: another model"
    assert contributions(directory) == undisturbed.contributions, f"killed before effect {note}"
    lines = programs.history(directory)
    assert [line["version"] for line in lines] == [1, 2], f"killed before effect {note}: {lines}"
    assert not list((directory / "run" / "spool").iterdir()), "a committed round's spool is deleted"
    return note
