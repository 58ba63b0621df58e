"""An aggregator that compacts its journal again and again is killed, and resumed (reliability, 1.12)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fl_aggregator.round.phases import Finished
from fl_aggregator.server.resume import replay_journal
from fl_aggregator.storage.journal import SNAPSHOT_PREFIX
from fl_aggregator.storage.run_directory import read_run
from tests.support import programs
from tests.support.broker import Mosquitto

pytestmark = [pytest.mark.broker, pytest.mark.edge]

TASK = ("--task", "synthetic-1000")
ROUNDS = 60
RUN = (
    *TASK, "--clients", "3", "--per-round", "3", "--quorum", "3", "--holdout", "0", "--wait", "60",
    "--deadline", "86400", "--rounds", str(ROUNDS),
)  # fmt: skip


def compacting(kill_after: int, *arguments: str) -> tuple[int, str]:
    """An aggregator from its start to its end: its exit code, and its log."""
    done = programs.run(
        "tests.support.compacting_aggregator", "start", *arguments, "--keepalive", programs.KEEPALIVE,
        environment={**os.environ, "KILL_AFTER": str(kill_after)},
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shared_mosquitto: Mosquitto) -> Path:
    """The directory of a run in which nothing happens."""
    directory, prefix = tmp_path_factory.mktemp("whole"), ("--prefix", "compaction")
    with (
        programs.edges(directory / "edges", shared_mosquitto.url, "0-2", *TASK, *prefix),
        programs.aggregator(directory, shared_mosquitto.url, *RUN, *prefix) as run,
    ):
        run.ends_well()
    return directory


@pytest.mark.parametrize("checkpoint", [pytest.param("whole", marks=pytest.mark.long), "damaged"])
def test_a_run_with_a_compacted_journal_goes_on_to_the_same_model(
    whole: Path, mosquitto: Mosquitto, tmp_path: Path, checkpoint: str
) -> None:
    run, journal = tmp_path / "run", tmp_path / "run" / "journal.jsonl"
    with programs.edges(tmp_path / "edges", mosquitto.url, "0-2", *TASK):
        code, log = compacting(2, *RUN, "--broker", mosquitto.url, "--run-dir", str(run))
        assert code == -signal.SIGKILL, log
        found = replay_journal(run, read_run(run))
        version, entries = found.state.version, found.entries
        assert journal.read_bytes().startswith(SNAPSHOT_PREFIX)
        assert entries < 40, "the events of a round or two"
        newest = run / "checkpoints" / f"version-{version:06d}.safetensors"
        if checkpoint == "damaged":
            newest.write_bytes(newest.read_bytes()[:-100])
        code, log = compacting(0, "--resume", str(run), "--broker", mosquitto.url)
        assert code == 0, log
        assert (f"continuing from version {version - 1}" in log) is (checkpoint == "damaged")
    assert (run / "model.safetensors").read_bytes() == (whole / "run" / "model.safetensors").read_bytes()
    lines = programs.history(whole)
    assert [line["digest"] for line in programs.history(tmp_path)] == [line["digest"] for line in lines]
    assert len(lines) == ROUNDS
    assert journal.stat().st_size < (whole / "run" / "journal.jsonl").stat().st_size / 2
    assert isinstance(replay_journal(run, read_run(run)).state.phase, Finished)
