"""A ledger forgets no charge: not when it is torn, copied, or cannot be written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fl_edge.session.privacy import Charge
from fl_edge.storage.privacy_ledger import FILE_NAME, PrivacyLedger
from fl_shared.errors import UserError

LOCAL = (Charge("edge", 2.0),)
DEAR = (Charge("edge", 0.5), Charge("example", 1.0, 0.25, 100))


def digest(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A ledger of two updates."""
    ledger = PrivacyLedger(tmp_path, "7")
    ledger.charge("R", 1, digest(1), LOCAL)
    ledger.charge("R", 2, digest(2), DEAR)
    return tmp_path / FILE_NAME


def charges(path: Path) -> set[Charge]:
    return set(PrivacyLedger(path.parent, "7").charges)


def test_what_is_written_down_is_read_again(written: Path) -> None:
    again = PrivacyLedger(written.parent, "7")
    assert set(again.charges) == {*LOCAL, *DEAR}
    assert (again.of(digest(2)), again.of(digest(3))) == (DEAR, ())
    assert written.stat().st_mode & 0o777 == 0o600
    again.charge("S", 0, digest(3), LOCAL)
    assert charges(written) == {Charge("edge", 2.0, steps=2), *DEAR}


def test_an_update_that_is_sent_again_is_charged_once(written: Path) -> None:
    before = written.read_bytes()
    ledger = PrivacyLedger(written.parent, "7")
    ledger.charge("R", 2, digest(2), DEAR)
    assert written.read_bytes() == before
    assert set(ledger.charges) == {*LOCAL, *DEAR}


@pytest.mark.parametrize("cut", [1, 2, 60])
def test_a_torn_line_counts_like_the_dearest_one(written: Path, cut: int) -> None:
    """If all but its end is there, the line itself counts."""
    PrivacyLedger(written.parent, "7").charge("R", 3, digest(3), LOCAL)
    os.truncate(written, written.stat().st_size - cut)
    torn = {Charge("edge", 2.0, steps=2), *DEAR} if cut == 1 else {
        *LOCAL, Charge("edge", 0.5, steps=2), Charge("example", 1.0, 0.25, 200)
    }  # fmt: skip
    assert charges(written) == torn
    PrivacyLedger(written.parent, "7").charge("R", 4, digest(4), (Charge("edge", 9.0),))
    assert charges(written) == {*torn, Charge("edge", 9.0)}


def test_a_line_that_nothing_compares_with_is_the_users_to_judge(tmp_path: Path) -> None:
    PrivacyLedger(tmp_path, "7").charge("R", 1, digest(1), LOCAL)
    path = tmp_path / FILE_NAME
    os.truncate(path, path.stat().st_size - 9)
    with pytest.raises(
        UserError, match="line 2: cannot be read, and no other line says what an update costs"
    ):
        PrivacyLedger(tmp_path, "7")


def test_a_ledger_whose_first_line_was_never_whole_is_empty(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(b'{"client": "7", "ino')
    ledger = PrivacyLedger(tmp_path, "7")
    assert ledger.charges == ()
    ledger.charge("R", 1, digest(1), LOCAL)
    assert charges(path) == {*LOCAL}


def test_a_copy_is_not_gone_on_with(written: Path, tmp_path: Path) -> None:
    """The original may be in use: together they would spend the budget twice."""
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy2(written, copy / FILE_NAME)
    with pytest.raises(UserError, match="is a copy") as refused:
        PrivacyLedger(copy, "7")
    first = str(refused.value).partition("make the first line ")[2]
    lines = [first, *written.read_text().splitlines()[1:]]
    (copy / FILE_NAME).write_text("\n".join(lines) + "\n")
    assert set(PrivacyLedger(copy, "7").charges) == {*LOCAL, *DEAR}
    with pytest.raises(UserError, match="belongs to edge '7', but this is edge '8'"):
        PrivacyLedger(written.parent, "8")


def test_what_cannot_be_written_is_not_charged_and_said(written: Path) -> None:
    ledger = PrivacyLedger(written.parent, "7")
    lines = written.read_bytes()
    written.unlink()
    written.mkdir()
    with pytest.raises(OSError, match=r"Is a directory|not a regular file"):
        ledger.charge("R", 3, digest(3), LOCAL)
    assert ledger.of(digest(3)) == ()
    written.rmdir()
    written.write_bytes(lines)


def test_the_line_is_on_the_disk_on_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    PrivacyLedger(tmp_path, "7").charge("R", 1, digest(1), LOCAL)
    assert (tmp_path / FILE_NAME).stat().st_ino in synced
    assert tmp_path.stat().st_ino in synced
    head = json.loads((tmp_path / FILE_NAME).read_text().splitlines()[0])
    assert head == {"client": "7", "inode": (tmp_path / FILE_NAME).stat().st_ino}
