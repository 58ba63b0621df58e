"""The aggregator follows the list of revoked kits: forged, older and unreadable ones change nothing (protocol, 14)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_aggregator.server import revocation_file
from fl_aggregator.server.revocation_file import CHECK_SECONDS, RevocationFile
from fl_shared.errors import UserError
from fl_shared.security.revocations import MAX_LIST, RevocationList
from fl_shared.security.signatures import Signer, Verifier
from fl_shared.system.files import write_private

KEY = bytes(range(32))
VERIFIER = Verifier(Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw())


class Followed:
    """A file that a run has obeyed up to ``number``, and a clock that stands."""

    def __init__(self, directory: Path, number: int = 0) -> None:
        self.path = directory / "revoked.json"
        self.now = 100.0
        self.file = RevocationFile(self.path, VERIFIER, number, clock=lambda: self.now)

    def write(self, number: int, *accounts: str, key: bytes = KEY) -> RevocationList:
        written = RevocationList(number=number, accounts=accounts, keys=())
        write_private(self.path, written.sign(Signer(key)))
        return written

    def poll(self) -> RevocationList | None:
        self.now = self.file.due()
        return self.file.poll()


def test_a_list_is_read_at_the_start_and_a_newer_one_when_it_is_there(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    first = followed.write(3)
    assert followed.file.read_first() == first
    assert followed.poll() is None
    second = followed.write(4, "7")
    assert followed.file.poll() is None, "not before it is time to look"
    assert followed.file.due() == followed.now + CHECK_SECONDS
    assert followed.poll() == second
    assert followed.poll() is None


def test_a_run_begins_without_a_list_and_one_may_come(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    assert followed.file.read_first() is None
    assert followed.poll() is None
    assert followed.poll() is None
    written = followed.write(1)
    assert followed.poll() == written


def test_an_older_list_does_not_replace_a_newer_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    followed = Followed(tmp_path)
    followed.write(9, "7")
    followed.file.read_first()
    followed.write(8)
    assert followed.poll() is None
    assert followed.poll() is None
    assert caplog.text.count("number: 8, but list 9 is in force; expected a newer one") == 1
    newest = followed.write(10)
    assert followed.poll() == newest


def test_a_forged_an_oversized_or_a_missing_list_leaves_the_last_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    followed = Followed(tmp_path)
    followed.write(9, "7")
    followed.file.read_first()
    followed.write(10, key=bytes(32))
    assert followed.poll() is None
    assert "not signed with the enrolment key" in caplog.text
    write_private(followed.path, b"x" * (MAX_LIST + 1))
    assert followed.poll() is None
    assert f"larger than {MAX_LIST} bytes" in caplog.text
    followed.path.unlink()
    assert followed.poll() is None
    assert "is missing; the previous list stays in force" in caplog.text
    assert followed.poll() is None
    assert len(caplog.records) == 3, "each mistake once"


@pytest.mark.parametrize(
    ("number", "key", "said"),
    [
        (8, KEY, "number: 8, but list 9"),
        (10, bytes(32), "not signed with"),
        (None, KEY, "is missing, but this run"),
    ],
)
def test_a_run_does_not_go_on_with_less_than_it_has_obeyed(
    tmp_path: Path, number: int | None, key: bytes, said: str
) -> None:
    followed = Followed(tmp_path, number=9)
    if number is not None:
        followed.write(number, key=key)
    with pytest.raises(UserError, match=said):
        followed.file.read_first()


def test_it_goes_on_with_the_list_that_it_has_obeyed(tmp_path: Path) -> None:
    followed = Followed(tmp_path, number=9)
    same = followed.write(9, "7")
    assert followed.file.read_first() == same


def test_without_a_kit_there_is_nothing_to_follow() -> None:
    file = RevocationFile(None, None)
    assert file.read_first() is None
    assert file.poll() is None
    assert file.due() == float("inf")


def test_a_list_that_nobody_may_read_is_obeyed_when_that_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = Followed(tmp_path)
    followed.write(9)
    followed.file.read_first()
    newest = followed.write(10, "7")
    with monkeypatch.context() as patched:  # root may read everything, whatever the mode is
        patched.setattr(revocation_file, "read_at_most", _denied)
        assert followed.poll() is None
        assert followed.poll() is None
    assert caplog.text.count("Permission denied; the previous list stays in force") == 1
    assert followed.poll() == newest, "chmod changes neither the content nor its time"


def _denied(path: Path, *_: object, **__: object) -> tuple[bytes, int]:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
