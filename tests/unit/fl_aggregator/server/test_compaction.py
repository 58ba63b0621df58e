"""The journal does not grow for ever, and a compacted one is worth as much as a whole one (reliability, 1.12)."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fl_aggregator.server.resume import recover, replay_journal
from fl_aggregator.storage import append_log, journal
from fl_aggregator.storage.journal import SNAPSHOT_PREFIX, snapshot_line
from fl_aggregator.storage.replay import replay
from fl_aggregator.storage.run_directory import HISTORY_FILE, RunDirectory, read_run
from fl_shared.errors import RunFailed, UserError
from fl_shared.system.files import is_temporary, write_all
from tests.support.recorded_runs import contents, directory_of, played, rounds_in
from tests.support.round_playbook import Playbook, round_done, training

KILLED = 9


@pytest.fixture(scope="module")
def hundred_rounds() -> Playbook:
    """A run whose round 101 is open, with an evaluator that reports on every other version."""
    playbook = training(clients=2, per_round=2, rounds=500, evaluator=True)
    for version in range(1, 101):
        round_done(playbook)
        if version % 2:
            playbook.play(f"evaluate e {version} 0.{version:03d}")
    return playbook.play(f"send {playbook.cohort[0]}")


def compacted_at_the_last_commit(path: Path) -> RunDirectory:
    """`played`, whose journal is a snapshot at version 2 and what came after it."""
    directory = played(path)
    directory.journal.compact(*commit(path, 2))
    return directory


def commit(path: Path, version: int) -> tuple[int, str]:
    """The size of the journal at the commit of a version, and the snapshot there."""
    found = replay_journal(path, read_run(path), version)
    lines = (path / journal.FILE_NAME).read_bytes().splitlines(keepends=True)
    return sum(map(len, lines[: found.entries])), snapshot_line(found.snapshot)


def entries_in(path: Path) -> int:
    return (path / journal.FILE_NAME).read_bytes().count(b"\n")


def test_a_compacted_journal_is_worth_as_much_as_a_whole_one(
    tmp_path: Path, hundred_rounds: Playbook
) -> None:
    whole, compacted = tmp_path / "whole", tmp_path / "compacted"
    directory_of(hundred_rounds, whole).close()
    directory_of(hundred_rounds, compacted, min_bytes=1).close()
    assert (compacted / journal.FILE_NAME).read_bytes().startswith(SNAPSHOT_PREFIX)
    for until in (None, 100, 99):
        expected = replay_journal(whole, read_run(whole), until)
        found = replay_journal(compacted, read_run(compacted), until)
        assert found.snapshot == expected.snapshot
        assert found.effects_to_repeat(found.state) == expected.effects_to_repeat(expected.state)
        assert found.lines.items() <= expected.lines.items()
    before = rounds_in(compacted)
    directory = RunDirectory(compacted, resume=True)
    recover(directory, read_run(compacted))
    directory.close()
    assert rounds_in(compacted) == before == list(range(1, 100)), "round 100 is being evaluated"


def test_the_journal_stays_below_some_snapshots(tmp_path: Path) -> None:
    """However many rounds there are; a journal without snapshots would be twenty times as large."""
    playbook = training(clients=2, per_round=2, rounds=250, holdout=0)
    size: dict[int, int] = {}
    for rounds in (75, 150):
        while playbook.round <= rounds:
            round_done(playbook)
        directory = directory_of(playbook, tmp_path / str(rounds), min_bytes=1)
        size[rounds] = directory.journal.size
        directory.close()
        found = replay_journal(tmp_path / str(rounds), read_run(tmp_path / str(rounds)))
        round_bytes = 2000
        assert size[rounds] < 4 * len(snapshot_line(found.snapshot)) + 3 * round_bytes
        assert found.state == playbook.state


def test_a_short_journal_keeps_all_its_events(tmp_path: Path, hundred_rounds: Playbook) -> None:
    directory_of(hundred_rounds, tmp_path).close()
    assert SNAPSHOT_PREFIX not in (tmp_path / journal.FILE_NAME).read_bytes()


def test_a_resumed_run_compacts_its_journal_too(tmp_path: Path) -> None:
    directory = compacted_at_the_last_commit(tmp_path)
    before = replay_journal(tmp_path, read_run(tmp_path))
    directory.journal.compact(*commit(tmp_path, 3))
    directory.close()
    assert entries_in(tmp_path) < before.entries
    assert replay_journal(tmp_path, read_run(tmp_path)).snapshot == before.snapshot


def test_settings_that_change_at_a_resume_are_not_those_of_the_snapshot(tmp_path: Path) -> None:
    compacted_at_the_last_commit(tmp_path).close()
    record = read_run(tmp_path)
    record = record.model_copy(
        update={"settings": record.settings.model_copy(update={"require_sealed": True})}
    )
    assert replay_journal(tmp_path, record).state.settings.require_sealed


def killed_at_line(number: int, action: Callable[[], Any]) -> bool:
    """Forks a process that dies at a line of our code in ``action``; false if it has fewer lines."""
    child = os.fork()
    if child == 0:
        left = number

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal left
            if "/fl_" not in frame.f_code.co_filename:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os._exit(KILLED)
            return trace

        sys.settrace(trace)
        try:
            action()
        finally:
            sys.settrace(None)
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_journal(tmp_path: Path) -> None:
    directory = played(tmp_path)
    expected = replay_journal(tmp_path, read_run(tmp_path)).snapshot
    end, snapshot = commit(tmp_path, 2)
    old = (tmp_path / journal.FILE_NAME).read_bytes()
    new = snapshot.encode() + b"\n" + old[end:]
    seen: list[bytes] = []
    while killed_at_line(len(seen), lambda: directory.compact_journal(end, snapshot)):
        found = (tmp_path / journal.FILE_NAME).read_bytes()
        if found not in seen:
            assert replay_journal(tmp_path, read_run(tmp_path)).snapshot == expected
        seen.append(found)
        (tmp_path / journal.FILE_NAME).write_bytes(old)
    directory.close()
    assert seen == sorted(seen, key=[old, new].index)
    assert new in seen
    assert any(is_temporary(path.name) for path in tmp_path.iterdir())
    again = RunDirectory(tmp_path, resume=True)
    recover(again, read_run(tmp_path))
    again.close()
    assert not any(is_temporary(path.name) for path in tmp_path.iterdir())


def test_without_space_the_journal_stays_as_it_is(
    tmp_path: Path,
    hundred_rounds: Playbook,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(file: object, *buffers: bytes) -> None:
        if len(buffers) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(file, *buffers)  # type: ignore[arg-type]

    really = write_all
    monkeypatch.setattr(append_log, "write_all", full)
    directory_of(hundred_rounds, tmp_path, min_bytes=1).close()
    assert 1 <= caplog.text.count("the journal cannot be compacted now: disk full") <= 4, "seldom"
    assert not any(is_temporary(path.name) for path in tmp_path.iterdir())
    found = replay_journal(tmp_path, read_run(tmp_path))
    assert found.state == hundred_rounds.state
    assert found.entries == entries_in(tmp_path) > 300


def test_a_compacted_journal_that_is_cut_anywhere_is_continued_or_refused(tmp_path: Path) -> None:
    """Never is it taken for the journal of a run that has not begun."""
    compacted_at_the_last_commit(tmp_path / "whole").close()
    record = read_run(tmp_path / "whole")
    whole = (tmp_path / "whole" / journal.FILE_NAME).read_bytes()
    states = [snapshot.state for snapshot, _ in replay(record, tmp_path / "whole")]
    first = whole.index(b"\n") + 1
    for size in [*range(0, first, 101), first - 1, *range(first, len(whole), 101)]:
        path = tmp_path / str(size)
        shutil.copytree(tmp_path / "whole", path)
        (path / journal.FILE_NAME).write_bytes(whole[:size])
        directory = RunDirectory(path, resume=True)
        before = contents(path)
        if size < first:
            with pytest.raises(UserError, match=r"journal\.jsonl.*(is cut off|is missing)"):
                recover(directory, record)
            assert contents(path) == before
        else:
            assert recover(directory, record).state == states[whole[:size].count(b"\n") - 1]
        directory.close()


@pytest.mark.parametrize(
    "line", ['{"snapshot":{}}', '{"snapshot":7}', '{"snapshot":{"state":{}}}', '{"snapshot":']
)
def test_a_damaged_snapshot_is_named(tmp_path: Path, line: str) -> None:
    directory = compacted_at_the_last_commit(tmp_path)
    directory.close()
    path = tmp_path / journal.FILE_NAME
    path.write_bytes(line.encode() + b"\n" + path.read_bytes().partition(b"\n")[2])
    with pytest.raises(UserError, match=r"journal\.jsonl: line 1 is not a snapshot: "):
        replay_journal(tmp_path, read_run(tmp_path))


def test_a_damaged_checkpoint_leads_back_to_the_snapshot_and_no_further(tmp_path: Path) -> None:
    directory = compacted_at_the_last_commit(tmp_path)
    directory.checkpoints.version_path(3).write_bytes(b"")
    found = recover(directory, read_run(tmp_path))
    assert (found.state.version, found.entries) == (2, 1)
    assert rounds_in(tmp_path) == [1, 2]
    assert entries_in(tmp_path) == 1
    directory.checkpoints.version_path(2).write_bytes(b"")
    before = contents(tmp_path)
    with pytest.raises(RunFailed, match=r"version-000002.*the run cannot continue without it"):
        recover(directory, read_run(tmp_path))
    assert contents(tmp_path) == before
    directory.close()


def test_lines_of_the_history_that_nobody_has_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = compacted_at_the_last_commit(tmp_path)
    (tmp_path / HISTORY_FILE).write_bytes(b"")
    recover(directory, read_run(tmp_path))
    directory.close()
    assert rounds_in(tmp_path) == [3]
    assert "history.jsonl lacks 2 rounds that the journal no longer has" in caplog.text
