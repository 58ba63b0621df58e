"""What an edge keeps for a correction, on disk."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fl_edge.session.work import OwnState, StateReference
from fl_edge.storage import own_state_files
from fl_edge.storage.own_state_files import CURRENT, STAGED, OwnStateFiles

ONE, TWO = StateReference("R", 1, "a" * 64), StateReference("R", 2, "b" * 64)


def vectors(value: float) -> dict[str, memoryview]:
    return {"control": memoryview(np.full(4, value, "<f4").tobytes())}


def test_what_is_staged_counts_when_it_is_promoted(tmp_path: Path) -> None:
    files = OwnStateFiles(tmp_path, "7")
    assert files.read() == OwnState()
    assert files.current() == {}
    files.stage(ONE, vectors(1.0))
    assert OwnStateFiles(tmp_path, "7").read() == OwnState(None, ONE)
    assert files.current() == {}
    files.promote()
    files.stage(TWO, vectors(2.0))
    assert OwnStateFiles(tmp_path, "7").read() == OwnState(ONE, TWO)
    assert files.current() == vectors(1.0)
    assert load_file(tmp_path / CURRENT)["control"].tolist() == [1.0] * 4, "other tools can read it"
    files.drop(staged=True, current=False)
    assert OwnStateFiles(tmp_path, "7").read() == OwnState(ONE)
    files.drop(staged=False, current=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spoil", ["cut", "other-bits", "other-client", "nonsense"])
def test_a_file_that_is_not_usable_is_named_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: str
) -> None:
    OwnStateFiles(tmp_path, "8" if spoil == "other-client" else "7").stage(ONE, vectors(1.0))
    path = tmp_path / STAGED
    whole = path.read_bytes()
    if spoil == "cut":
        path.write_bytes(whole[:-4])
    elif spoil == "other-bits":
        path.write_bytes(whole[:-1] + b"\xff")
    elif spoil == "nonsense":
        path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with caplog.at_level(logging.WARNING):
        assert OwnStateFiles(tmp_path, "7").read() == OwnState()
    assert "begins as a new one" in caplog.text
    assert not path.exists()


def test_without_space_it_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = OwnStateFiles(tmp_path, "7")
    files.stage(ONE, vectors(1.0))
    files.promote()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(own_state_files, "write_atomically", full)
    files.stage(TWO, vectors(2.0))
    assert files.current() == vectors(1.0)
    files.promote()
    assert files.current() == vectors(2.0)
    assert OwnStateFiles(tmp_path, "7").read() == OwnState(), "what was before no longer counts"
    monkeypatch.undo()
    files.stage(ONE, vectors(3.0))
    files.promote()
    assert files.current() == vectors(3.0)
