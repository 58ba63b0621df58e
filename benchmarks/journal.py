"""Measures what compacting the journal of a long run saves, and what it costs. Only the round machine runs.

    python benchmarks/journal.py [--edges 1000] [--per-round 10] [--rounds 10000]

Every round closes with all its updates, and one evaluator reports on each version. The events are recorded in two
journals; one of them is never compacted. Of both it prints the size, the seconds of a replay, as at a resume, and the
time that compacting them took.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import step
from fl_aggregator.round.phases import Collecting
from fl_aggregator.round.snapshot import Snapshot
from fl_aggregator.round.state import Run
from fl_aggregator.server.compaction import MIN_BYTES, JournalCompactor
from fl_aggregator.server.resume import replay_journal
from fl_aggregator.storage.replay import first_snapshot
from fl_aggregator.storage.run_directory import RunDirectory, RunRecord, new_record

METRICS = {"accuracy": 0.8123456, "loss": 0.51234567}


def sha256(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal, as everything that is a digest has it."""
    return hashlib.sha256(text.encode()).hexdigest()


class Recording:
    """One run's journal, its largest size, and the seconds that compacting it took, in all and at most at once."""

    def __init__(self, path: Path, record: RunRecord, min_bytes: int) -> None:
        self._path, self._record = path, record
        self._directory = RunDirectory(path, "memory")
        self._directory.write_run(record)
        self._compactor = JournalCompactor(self._directory, first_snapshot(record), min_bytes)
        self._seconds = self._longest = 0.0
        self._largest = 0

    def add(self, event: on.Event, state: Run, effects: tuple[do.Effect, ...]) -> None:
        """Records a step that changed the state, as the aggregator does."""
        self._directory.journal.append(event)
        self._largest = max(self._largest, self._directory.journal.size)
        started = time.perf_counter()
        self._compactor.add(event, state, effects)
        seconds = time.perf_counter() - started
        self._seconds += seconds
        self._longest = max(self._longest, seconds)

    def measurements(self) -> dict[str, float]:
        """Replays the journal, and returns what was measured."""
        size = self._directory.journal.size
        self._directory.close()
        started = time.perf_counter()
        replay_journal(self._path, self._record)
        return {
            "mb": round(size / 1e6, 2),
            "largest_mb": round(self._largest / 1e6, 2),
            "replay_seconds": round(time.perf_counter() - started, 3),
            "ms_per_round": round(1e3 * self._seconds / self._record.settings.rounds, 4),
            "ms_longest": round(1e3 * self._longest, 2),
        }


def events(settings: Settings, run: Snapshot) -> Iterator[on.Event]:
    """The events of a run without faults; ``run`` has the state after the event before."""
    manifest, now = sha256("manifest"), 0.1
    yield on.Started(now=now)
    for name in ("judge", *map(str, range(settings.clients))):
        roles: tuple[Any, ...] = ("evaluate",) if name == "judge" else ("train", "predict")
        loads: list[dict[str, Any]] = (
            [{}] if name == "judge" else [{}, {"manifest": manifest, "examples": 60}]
        )
        for loaded in loads:
            yield on.Registered(
                now=now, client=name, session=sha256(name)[:16], device=sha256(name)[16:48], roles=roles,
                encodings=(settings.encoding,), task=settings.task, **loaded,
            )  # fmt: skip
    while not run.state.ended:
        phase, now = run.state.phase, round(now + 0.5, 6)
        assert isinstance(phase, Collecting)
        for name in phase.cohort[: phase.target]:
            update = on.UpdateMetadata(
                client=name, session=sha256(name)[:16], round=phase.round, digest=sha256(f"{name} {phase.round}"),
                base=None if phase.base is None else phase.base.digest, manifest=manifest, examples=60, steps=120,
                size=1_724_320, seconds=1.234567, before=METRICS, after=METRICS, train={"loss": 0.31234567},
            )  # fmt: skip
            yield on.UpdateStored(now=now, update=update)
        digest = sha256(str(phase.round))
        yield on.ModelCreated(now=now, round=phase.round, digest=digest, manifest=manifest)
        if (version := run.state.version) > 0:
            yield on.Evaluated(
                now=now, client="judge", session=sha256("judge")[:16], version=version, digest=digest, split="test",
                examples=10_000, loss=0.5, metrics={"accuracy": 0.8},
            )  # fmt: skip


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edges", type=int, default=1000)
    parser.add_argument("--per-round", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=10_000)
    arguments = parser.parse_args()
    settings = Settings(clients=arguments.edges, per_round=arguments.per_round, rounds=arguments.rounds)
    record = new_record(settings)
    run = first_snapshot(record)
    with tempfile.TemporaryDirectory() as folder:
        recordings = {
            name: Recording(Path(folder) / name, record, min_bytes)
            for name, min_bytes in (("whole", sys.maxsize), ("compacted", MIN_BYTES))
        }
        for event in events(settings, run):
            run.state, effects = step(run.state, event)
            if any(isinstance(effect, do.Record) for effect in effects):
                for recording in recordings.values():
                    recording.add(event, run.state, effects)
        measured = {name: recording.measurements() for name, recording in recordings.items()}
    print(json.dumps({"benchmark": "journal", **vars(arguments), **measured}))


if __name__ == "__main__":
    main()
