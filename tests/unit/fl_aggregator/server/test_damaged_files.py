"""What a resume makes of files that are damaged, or were cut by a power failure (reliability, 1.11)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.server.resume import recover, replay_journal
from fl_aggregator.storage.checkpoint import read_safetensors
from fl_aggregator.storage.replay import replay
from fl_aggregator.storage.run_directory import RunDirectory, read_run
from fl_shared.errors import RunFailed, UserError
from tests.support.recorded_runs import contents, played, rounds_in
from tests.support.versions import model_of

EVERY_OFFSET = pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.long)])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_costs_its_round(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = played(tmp_path)
    flip_a_bit(directory.checkpoints.version_path(3))
    found = recover(directory, read_run(tmp_path))
    assert (found.state.version, sorted(found.checkpoints)) == (2, [1, 2])
    assert found.checkpoints[2].digest == model_of(2).digest
    assert "version-000003.safetensors: is not the model in the journal" in caplog.text
    assert "continuing from version 2, and repeating the round after it" in caplog.text
    assert read_safetensors(directory.checkpoints.model_path).digest == model_of(2).digest
    assert rounds_in(tmp_path) == [1, 2]
    directory.close()
    assert replay_journal(tmp_path, read_run(tmp_path)).state == found.state, "the journal agrees"


def test_a_damaged_checkpoint_of_an_earlier_version_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = played(tmp_path)
    directory.checkpoints.version_path(2).unlink()
    found = recover(directory, read_run(tmp_path))
    directory.close()
    assert (found.state.version, sorted(found.checkpoints)) == (3, [3])
    published = [
        e.model.version for e in found.effects_to_repeat(found.state) if isinstance(e, do.PublishModel)
    ]
    assert published == [3]
    assert "version-000002.safetensors: is missing; the run does not need this version" in caplog.text


def test_two_damaged_checkpoints_end_the_run_and_change_nothing(tmp_path: Path) -> None:
    directory = played(tmp_path)
    for version in (2, 3):
        flip_a_bit(directory.checkpoints.version_path(version))
    before = contents(tmp_path)
    with pytest.raises(RunFailed, match=r"version-000003.*version-000002.*restore a file from a copy"):
        recover(directory, read_run(tmp_path))
    assert contents(tmp_path) == before
    directory.close()


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_journal_that_is_behind_the_checkpoints_is_refused_and_nothing_is_changed(
    tmp_path: Path, kept: int
) -> None:
    """``kept``: how many of the four versions the journal still has."""
    directory = played(tmp_path)
    directory.close()
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    commits = [number for number, line in enumerate(lines, 1) if b'"ModelCreated"' in line]
    path.write_bytes(b"".join(lines[: commits[kept - 1] if kept else 0]))
    before = contents(tmp_path)
    reopened = RunDirectory(tmp_path, resume=True)
    with pytest.raises(
        UserError, match=r"journal.jsonl .*checkpoint of version 3: a part of the journal is missing"
    ):
        recover(reopened, read_run(tmp_path))
    assert contents(tmp_path) | {".lock": b""} == before | {".lock": b""}
    reopened.close()


@EVERY_OFFSET
def test_a_journal_that_is_cut_anywhere_is_continued_or_refused(tmp_path: Path, step: int) -> None:
    """What a power failure may leave: the state is one that the run has been in, or an error says what is missing."""
    played(tmp_path / "run").close()
    whole = (tmp_path / "run" / "journal.jsonl").read_bytes()
    record = read_run(tmp_path / "run")
    states = [snapshot.state for snapshot, _ in replay(record, tmp_path / "run")]
    for size in range(0, len(whole), step):
        (tmp_path / "run" / "journal.jsonl").write_bytes(whole[:size])
        directory = RunDirectory(tmp_path / "run", resume=True)
        events = whole[:size].count(b"\n")
        committed = -1 if events == 0 or states[events - 1].model is None else states[events - 1].version
        if committed < 2:
            with pytest.raises(UserError, match="a part of the journal is missing"):
                recover(directory, record)
        else:
            found = recover(directory, record)
            assert (found.entries, found.state) == (events, states[events - 1])
            directory.checkpoints.write(
                3, model_of(3)
            )  # which is not needed any more if the journal ends before it
        directory.close()


@EVERY_OFFSET
@pytest.mark.parametrize("name", ["run.json", "history.jsonl", "checkpoints/version-000003.safetensors"])
def test_another_file_that_is_cut_anywhere_is_repaired_or_named(tmp_path: Path, name: str, step: int) -> None:
    played(tmp_path / "run").close()
    path = tmp_path / "run" / name
    whole = path.read_bytes()
    for size in range(0, len(whole), step):
        path.write_bytes(whole[:size])
        if name == "run.json" and size < len(whole) - 1:  # without its last byte, a line end, it is whole
            with pytest.raises(UserError, match=r"run\.json"):
                read_run(tmp_path / "run")
            continue
        directory = RunDirectory(tmp_path / "run", resume=True)
        found = recover(directory, read_run(tmp_path / "run"))
        directory.close()
        assert found.state.version == (2 if name.startswith("checkpoints") else 3)
        assert rounds_in(tmp_path / "run") == list(range(1, found.state.version + 1))
        if found.state.version < 3:
            shutil.rmtree(tmp_path / "run")
            played(tmp_path / "run").close()
