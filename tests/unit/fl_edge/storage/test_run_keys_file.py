"""The keys of a masked run, and which set of updates is signed, on the disk."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from fl_edge.storage import run_keys_file
from fl_edge.storage.run_keys_file import FILE_NAME, RunKeysFile

ONE, OTHER = "1" * 64, "2" * 64
PLAN, ANOTHER_PLAN = "a" * 64, "b" * 64


def test_keys_are_made_once_for_a_run(tmp_path: Path) -> None:
    """P3 in docs/privacy.md."""
    keys = RunKeysFile(tmp_path, "7").make("R")
    again = RunKeysFile(tmp_path, "7")
    assert again.run == "R"
    assert again.make("R").private_bytes() == keys.private_bytes()
    assert again.keys("S") is None
    assert again.make("S").private_bytes() != keys.private_bytes()
    assert RunKeysFile(tmp_path, "7").keys("R") is None, "keys of a run before are gone"


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """P3 in docs/privacy.md."""
    RunKeysFile(tmp_path, "7").make("R")
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_one_set_of_a_round_is_signed_for_ever(tmp_path: Path) -> None:
    file = RunKeysFile(tmp_path, "7")
    assert not file.commit(1, PLAN, ONE), "there are no keys"
    file.make("R")
    assert file.commit(2, PLAN, ONE)
    for again in (file, RunKeysFile(tmp_path, "7")):
        assert again.commit(2, PLAN, ONE)
        assert not again.commit(2, PLAN, OTHER)
        assert not again.commit(1, PLAN, OTHER)
    assert file.commit(3, PLAN, OTHER)
    assert not RunKeysFile(tmp_path, "7").commit(2, PLAN, ONE)


def test_an_update_is_masked_for_one_plan_of_a_round(tmp_path: Path) -> None:
    """P7 in docs/privacy.md."""
    file = RunKeysFile(tmp_path, "7")
    file.make("R")
    assert file.commit(2, PLAN)
    for again in (file, RunKeysFile(tmp_path, "7")):
        assert again.commit(2, PLAN)
        assert not again.commit(2, ANOTHER_PLAN)
        assert not again.commit(2, ANOTHER_PLAN, ONE), "nor is a set of it signed"
        assert not again.commit(1, PLAN)
    assert file.commit(2, PLAN, ONE)
    assert file.commit(2, PLAN), "an edge that is restarted masks again"
    assert not RunKeysFile(tmp_path, "7").commit(2, PLAN, OTHER)
    assert file.commit(3, ANOTHER_PLAN)
    assert file.commit(3, ANOTHER_PLAN, ONE)


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


@pytest.mark.parametrize("also", ["unlink", "sync_directory"])
@pytest.mark.parametrize("is_made", [True, False])
def test_nothing_is_signed_while_the_disk_may_say_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, also: str, is_made: bool
) -> None:
    """P12 in docs/privacy.md: also not when it is asked for a second time."""
    file = RunKeysFile(tmp_path, "7")
    if is_made:
        file.make("R")
        assert file.commit(1, PLAN, ONE)
    with monkeypatch.context() as patch:
        patch.setattr(run_keys_file, "write_private", refuse)
        patch.setattr(*((Path, "unlink", refuse) if also == "unlink" else (run_keys_file, also, refuse)))
        keys = file.make("R")
        for _ in range(2):
            with pytest.raises(OSError, match="Read-only"):
                file.commit(2, PLAN, ONE)
    assert file.commit(2, PLAN, ONE)
    again = RunKeysFile(tmp_path, "7")
    assert again.make("R").private_bytes() == keys.private_bytes()
    assert not again.commit(2, PLAN, OTHER)


def test_another_run_begins_with_nothing_signed(tmp_path: Path) -> None:
    file = RunKeysFile(tmp_path, "7")
    file.make("R")
    file.commit(9, PLAN, ONE)
    file.make("S")
    assert file.commit(1, PLAN, OTHER)


def test_keys_that_are_dropped_are_on_no_disk(tmp_path: Path) -> None:
    """P3 in docs/privacy.md."""
    file = RunKeysFile(tmp_path, "7")
    file.make("R")
    file.drop()
    assert (file.run, file.keys("R"), list(tmp_path.iterdir())) == (None, None, [])


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b'{"run": "R"}', b"x" * 5000])
def test_a_file_that_is_not_usable_is_said_and_replaced(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        file = RunKeysFile(tmp_path, "7")
    assert "masked.json is not usable" in caplog.text
    file.make("R")
    assert RunKeysFile(tmp_path, "7").run == "R"


def test_no_key_is_printed(tmp_path: Path) -> None:
    file = RunKeysFile(tmp_path, "7")
    secret = file.make("R").private_bytes()[0].hex()
    assert secret not in f"{file._record!r} {file._keys!r}"
