"""``--resume`` of a directory that somebody else made changes nothing, in it or outside, before all of it is valid."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.server import launch
from fl_aggregator.storage.run_directory import read_run
from fl_shared.errors import UserError
from tests.support.answering_server import one_answer
from tests.support.command_line import is_one_clear_line, run_here


def content(path: Path) -> dict[str, str | bytes]:
    """All files and links below ``path``, with what is in them."""
    return {
        str(file.relative_to(path)): str(file.readlink()) if file.is_symlink() else file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_symlink() or file.is_file()
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory as in an archive, beside a directory with the user's own files."""
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    (home / "photos" / "a.jpg").write_bytes(b"x")
    (home / "keys").write_text("ssh-ed25519 AAAA me\nsecond line without an end")
    begun = launch.new(Settings(task="digits", clients=2, per_round=2), tmp_path / "run")
    begun.directory.write_run(begun.record)
    begun.close()
    return tmp_path / "run"


def replaced_by_link(name: str, target: str) -> Callable[[Path], None]:
    def plant(run: Path) -> None:
        place = run / name
        if place.is_dir():
            place.rmdir()
        place.unlink(missing_ok=True)
        place.symlink_to(run.parent / "home" / target)

    return plant


def hard_linked_journal(run: Path) -> None:
    (run / "journal.jsonl").unlink()
    (run / "journal.jsonl").hardlink_to(run.parent / "home" / "keys")


def pipe(run: Path) -> None:
    (run / "history.jsonl").unlink()
    os.mkfifo(run / "history.jsonl")


def no_event(run: Path) -> None:
    (run / "journal.jsonl").write_text('{"event": "Started", "now": 0.0}\nno event\nhalf a li')


def nested(run: Path) -> None:
    (run / "journal.jsonl").write_text("[" * 100_000 + "\nhalf a li")


def giant_record(run: Path) -> None:
    (run / "run.json").write_bytes((run / "run.json").read_bytes() + b" " * 2**24)


def other_options(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["fleet"] = {"options": {"kit": "/home/me/kit.zip"}}
    (run / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (replaced_by_link("spool", ""), "spool"),
        (replaced_by_link("checkpoints", "photos"), "checkpoints"),
        (replaced_by_link("journal.jsonl", "keys"), "journal.jsonl"),
        (replaced_by_link("history.jsonl", "keys"), "history.jsonl"),
        (replaced_by_link("run.json.part", "keys"), "run.json.part"),
        (replaced_by_link(".lock", "keys"), ".lock"),
        (replaced_by_link("tensorboard", "photos"), "tensorboard"),
        (hard_linked_journal, "hard link"),
        (pipe, "neither a file nor a directory"),
        (no_event, "line 2 is not an event"),
        (nested, "line 1 is not an event"),
        (giant_record, "larger than 16777216 bytes"),
        (other_options, "fleet.options"),
    ],
)
def test_nothing_is_changed(run: Path, plant: Callable[[Path], None], said: str) -> None:
    plant(run)
    before = content(run.parent)
    with pytest.raises(UserError, match=said):
        launch.resume(run, simulated=False)
    assert content(run.parent) == before


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_directory_that_others_may_write_to(run: Path, mode: int) -> None:
    run.chmod(mode)
    with pytest.raises(UserError, match="other users can write to it"):
        launch.resume(run, simulated=False)
    with pytest.raises(UserError, match="other users can write to it"):
        launch.new(Settings(), run)


def test_a_run_that_is_resumed_in_order(run: Path) -> None:
    resumed = launch.resume(run, simulated=False)
    resumed.directory.write_run(resumed.record)
    resumed.close()
    assert read_run(run).incarnation == 2


def test_a_password_is_not_sent_to_the_broker_that_it_names(run: Path) -> None:
    """Only to one that the command line names, as the line says."""
    password = {"FL_PASSWORD": "s3cret"}
    with socket.create_server(("127.0.0.1", 0)) as broker:
        url = f"mqtt://me@127.0.0.1:{broker.getsockname()[1]}"
        begun = launch.resume(run, simulated=False)
        begun.directory.write_run(begun.record.model_copy(update={"broker": url}))
        begun.close()
        command = ("fl-aggregator", "start", "--resume", str(run))
        is_one_clear_line(
            run_here(run.parent, command, password),
            "a password is sent only to a broker that the command line names",
            f"add --broker {url}",
        )
        broker.setblocking(False)
        with pytest.raises(BlockingIOError):
            broker.accept()
    copy = shutil.copytree(run, run.parent / "copy")  # this process, which goes on, has locked the other
    heard: list[bytes] = []
    with one_answer(b"", heard) as port:
        named = ("fl-aggregator", "start", "--resume", str(copy), "--broker", f"mqtt://me@127.0.0.1:{port}")
        is_one_clear_line(run_here(run.parent, named, password), "closed the connection without an answer")
    assert b"s3cret" in heard[0]
