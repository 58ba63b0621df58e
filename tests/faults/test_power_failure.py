"""The aggregator's machine loses power, and the edges stay (reliability, 1.11)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

TASK = ("--task", "synthetic-1000")
RUN = (
    *TASK, "--clients", "3", "--per-round", "3", "--quorum", "3", "--holdout", "0", "--wait", "60",
    "--deadline", "86400", "--rounds", "100000",
)  # fmt: skip


@pytest.mark.parametrize("checkpoint", ["whole", "damaged"])
def test_what_the_disk_did_not_have_is_repeated_at_once(
    mosquitto: Mosquitto, tmp_path: Path, checkpoint: str
) -> None:
    """The edges have had a round, or two, of which the journal knows nothing; no deadline passes."""
    run = tmp_path / "run"
    with programs.edges(tmp_path / "edges", mosquitto.url, "0-2", *TASK):
        with programs.aggregator(tmp_path, mosquitto.url, *RUN) as first:
            wait_until(lambda: "version 5 of" in first.err, 60, "five versions")
            first.send(signal.SIGKILL)
            first.wait()
        lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
        commits = [number for number, line in enumerate(lines, 1) if b'"ModelCreated"' in line]
        (run / "journal.jsonl").write_bytes(b"".join(lines[: commits[-1]]))
        version = len(commits) - 1  # The first one is of version 0.
        newest = run / "checkpoints" / f"version-{version:06d}.safetensors"
        if checkpoint == "damaged":
            newest.write_bytes(newest.read_bytes()[:-100])
        with programs.resumed(tmp_path, "--broker", mosquitto.url) as again:
            wait_until(lambda: f"version {version + 2} of" in again.err, 60, "two more versions")
            assert (f"continuing from version {version - 1}" in again.err) is (checkpoint == "damaged")
    assert {line["outcome"] for line in programs.history(tmp_path)} == {"committed"}
