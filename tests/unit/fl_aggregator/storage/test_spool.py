"""Updates on disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_aggregator.configuration.settings import Durability
from fl_aggregator.storage.disk_space import DiskFull
from fl_aggregator.storage.partial_update import PartialUpdate
from fl_aggregator.storage.spool import Spool
from fl_aggregator.storage.spool_format import SpoolFileDamaged, UpdateDescription
from fl_aggregator.storage.update_content import SectionContent, UpdateContent
from fl_shared.masking.unmasking import Opened
from fl_shared.protocol import messages as m
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.manifest import ArraySpec

MANIFEST = "ab" * 32
DATA = b"helloworld"
DIGEST = content_digest([("delta", "f32", MANIFEST, DATA)])
ARRAYS = (ArraySpec(name="größe", shape=(2,)), ArraySpec(name="mean", shape=(), role="buffer"))


def content(*pieces: bytes, arrays: tuple[ArraySpec, ...] | None = None) -> UpdateContent:
    names = ("delta", "x-control")
    sections = zip(names, pieces, strict=False)
    return UpdateContent(
        DIGEST,
        tuple(SectionContent(name, "f32", MANIFEST, arrays, memoryview(data)) for name, data in sections),
    )


def description(data: bytes = DATA, chunk_size: int = 4) -> UpdateDescription:
    section = m.OfferedSection(name="delta", encoding="f32", manifest=MANIFEST, size=len(data))
    chunks = max(1, -(-len(data) // chunk_size))
    return UpdateDescription(digest=DIGEST, sections=(section,), chunk_size=chunk_size, chunks=chunks)


def put(partial: PartialUpdate, *indices: int, data: bytes = DATA, chunk_size: int = 4) -> None:
    for index in indices:
        chunk = data[index * chunk_size : (index + 1) * chunk_size]
        partial.data[index * chunk_size : index * chunk_size + len(chunk)] = chunk
        partial.mark_received(index)


def names(directory: Path, round_number: int = 3) -> list[str]:
    return sorted(path.name for path in (directory / "spool" / str(round_number)).iterdir())


@pytest.mark.parametrize("durability", ["process", "power"])
def test_an_update_in_chunks_is_there_when_it_is_kept(tmp_path: Path, durability: Durability) -> None:
    spool = Spool(tmp_path, durability)
    partial = spool.begin(3, "7", description())
    put(partial, 2, 0, 1)
    assert names(tmp_path) == [f"7.{DIGEST}.part"]
    with pytest.raises(FileNotFoundError):
        spool.read(3, "7")
    partial.finalize()
    partial.close()
    assert names(tmp_path) == ["7.update"]
    read = spool.read(3, "7")
    assert (read.digest, read.known) == (DIGEST, None)
    assert [(s.name, s.encoding, s.manifest, s.arrays, bytes(s.data)) for s in read.sections] == [
        ("delta", "f32", MANIFEST, None, DATA)
    ]


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("arrays", [None, ARRAYS])
def test_a_whole_update_is_read_as_it_was_put(
    tmp_path: Path, durability: Durability, arrays: tuple[ArraySpec, ...] | None
) -> None:
    """First weights say themselves what they are: nobody else knows it."""
    spool = Spool(tmp_path, durability)
    spool.put(3, "7", content(b"hello", b"world!", arrays=arrays))
    assert names(tmp_path) == ["7.update"]
    assert spool.read(3, "7") == content(b"hello", b"world!", arrays=arrays)
    assert spool.get(3, "7") == b"helloworld!"


def test_in_memory_nothing_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "memory")
    partial = spool.begin(3, "7", description())
    put(partial, 0)
    partial.finalize()
    assert bytes(partial.data[:4]) == b"hell"
    partial.drop()
    partial.close()
    spool.put(3, "8", content(b"hello"))
    assert list((tmp_path / "spool").iterdir()) == []
    assert list(spool.partial_uploads(3)) == []


def test_what_is_dropped_or_forgotten_is_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for kept in (False, True):
        partial = spool.begin(3, "7", description())
        if kept:
            partial.finalize()
        partial.drop()
        partial.close()
        assert names(tmp_path) == []
    spool.put(3, "8", content(b"hello"))
    spool.put(3, "9", content(b"hello"))
    spool.delete(3, "8")
    assert names(tmp_path) == ["9.update"]
    spool.delete_round(3)
    spool.delete_round(4)
    assert list((tmp_path / "spool").iterdir()) == []


def test_an_update_without_a_byte(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    partial = spool.begin(0, "7", description(b""))
    put(partial, 0, data=b"")
    partial.finalize()
    partial.close()
    assert spool.get(0, "7") == b""


def test_another_update_of_a_client_leaves_the_one_that_is_looked_at_alone(tmp_path: Path) -> None:
    """Its file is mapped: if another one were made of it, a shorter one would kill the aggregator with SIGBUS."""
    spool = Spool(tmp_path)
    first = spool.begin(3, "7", description(bytes(100_000), 1024))
    first.data[:] = b"1" * 100_000
    other = description(b"abcd").model_copy(update={"digest": "cd" * 32})
    second = spool.begin(3, "7", other)
    put(second, 0, data=b"abcd")
    assert bytes(first.data) == b"1" * 100_000
    first.finalize()
    first.close()
    assert names(tmp_path) == [f"7.{'cd' * 32}.part", "7.update"]
    assert spool.get(3, "7") == b"1" * 100_000
    second.close()


# --- what an earlier life left ------------------------------------------------------------------------------


def test_the_chunks_that_had_come_are_found(tmp_path: Path) -> None:
    partial = Spool(tmp_path).begin(3, "7", description())
    put(partial, 0, 2)
    partial.close()  # and the aggregator dies
    ((client, found),) = Spool(tmp_path).partial_uploads(3)
    assert (client, found.description, list(found.received)) == ("7", description(), [1, 0, 1])
    assert bytes(found.partial.data[:4]) == b"hell"
    put(found.partial, 1)
    found.partial.finalize()
    found.partial.close()
    assert Spool(tmp_path).get(3, "7") == DATA


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "short": whole[:5],
            "cut": whole[:-1],
            "no data": whole[10:],
            "grown": bytes(8) + whole,
            "no JSON": whole.replace(b'{"digest"', b'["digest"'),
            "huge": whole[:-8] + (2**63).to_bytes(8, "little"),
            "other chunks": whole.replace(b'"chunks":3', b'"chunks":2'),
        }[how]
    )


WAYS = ["empty", "short", "cut", "no data", "grown", "no JSON", "huge", "other chunks"]


@pytest.mark.parametrize("how", WAYS)
def test_a_damaged_upload_is_deleted(tmp_path: Path, how: str) -> None:
    spool = Spool(tmp_path)
    spool.begin(3, "7", description()).close()
    damage(tmp_path / "spool" / "3" / f"7.{DIGEST}.part", how)
    assert list(spool.partial_uploads(3)) == []
    assert names(tmp_path) == []


@pytest.mark.parametrize("how", WAYS)
def test_a_damaged_update_is_told(tmp_path: Path, how: str) -> None:
    spool = Spool(tmp_path)
    partial = spool.begin(3, "7", description())
    partial.finalize()
    partial.close()
    damage(tmp_path / "spool" / "3" / "7.update", how)
    with pytest.raises(SpoolFileDamaged):
        spool.read(3, "7")


@pytest.mark.parametrize("name", ["8.part", f"8.{DIGEST}.part", f"7.{'cd' * 32}.part", "8.update.part"])
def test_a_file_that_is_not_what_its_name_says_is_deleted(tmp_path: Path, name: str) -> None:
    spool = Spool(tmp_path)
    spool.put(3, "8", content(DATA))
    (tmp_path / "spool" / "3" / "8.update").rename(tmp_path / "spool" / "3" / name)
    assert list(spool.partial_uploads(3)) == []
    assert names(tmp_path) == []


def test_at_a_resume_stays_what_was_accepted_or_is_under_way(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in (2, 3, 30):
        for client in ("7", "8"):
            spool.put(number, client, content(DATA))
        spool.begin(number, "9", description()).close()
    spool.delete_except({(3, "7")}, {3})
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["3"]
    assert names(tmp_path) == ["7.update", f"9.{DIGEST}.part"]
    spool.delete_except((), ())
    assert list((tmp_path / "spool").iterdir()) == []


def test_opened_shares_stay_for_a_resume_if_the_journal_names_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    opened = Opened(bytes(range(32)), ("lab-b",))
    digest = hashlib.sha256(opened.shares).hexdigest()
    for client in ("7", "8"):
        spool.put(3, client, content(DATA))
        spool.put_shares(3, client, opened)
    assert (tmp_path / "spool" / "3" / "7.shares").stat().st_mode & 0o777 == 0o600
    spool.delete_except({(3, "7"), (3, "8")}, {3}, {(3, "8")})
    assert names(tmp_path) == ["7.update", "8.shares", "8.update"]
    assert spool.read_shares(3, "8", digest) == opened
    with pytest.raises(SpoolFileDamaged, match="another digest"):
        spool.read_shares(3, "8", "0" * 64)
    (tmp_path / "spool" / "3" / "8.shares").write_bytes(b"{}\n" + opened.shares)
    with pytest.raises(SpoolFileDamaged, match="its first line"):
        spool.read_shares(3, "8", digest)
    spool.delete_round(3)
    assert list((tmp_path / "spool").iterdir()) == []


def test_opened_shares_are_on_no_disk_if_updates_are_not(tmp_path: Path) -> None:
    Spool(tmp_path, "memory").put_shares(3, "7", Opened(bytes(16)))
    assert list((tmp_path / "spool").iterdir()) == []


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_a_file_holds_is_an_update_or_damage(tmp_path: Path, data: st.DataObject) -> None:
    spool = Spool(tmp_path)
    partial = spool.begin(3, "7", description())
    put(partial, 0, 1, 2)
    partial.close()
    part, update = (tmp_path / "spool" / "3" / name for name in (f"7.{DIGEST}.part", "7.update"))
    whole = bytearray(part.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(whole)))
        stop = start + data.draw(st.sampled_from([0, 1, 8, 1000]))
        whole[start:stop] = data.draw(st.binary(max_size=9))
    part.write_bytes(whole)
    update.write_bytes(whole)
    for _, found in spool.partial_uploads(3):
        assert len(found.received) == found.description.chunks == 3
        found.partial.close()
    with contextlib.suppress(SpoolFileDamaged):
        read = spool.read(3, "7")
        assert sum(len(section.data) for section in read.sections) <= len(whole)
    spool.delete_round(3)


# --- a full disk --------------------------------------------------------------------------------------------


def full(*_arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_an_error_that_says_where_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFull) as caught:
        spool.begin(3, "7", description())
    needed = len(DATA) + len(description().trailer())
    assert str(caught.value) == f"disk full: {tmp_path / 'spool'}: needs {needed} bytes"
    assert (caught.value.errno, caught.value.needed_bytes) == (errno.ENOSPC, needed)
    assert names(tmp_path) == []
    monkeypatch.undo()
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFull):
        spool.put(3, "7", content(DATA))
    assert names(tmp_path) == []


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "posix_fallocate", broken)
    with pytest.raises(OSError, match="Read-only") as caught:
        Spool(tmp_path).begin(3, "7", description())
    assert not isinstance(caught.value, DiskFull)


def test_only_the_owner_may_read_an_update(tmp_path: Path) -> None:
    """P16 in docs/privacy.md; sealed updates are here without their seal."""
    (tmp_path / "spool").mkdir(mode=0o755)  # as an earlier version made it
    spool = Spool(tmp_path)
    spool.put(3, "whole", content(DATA))
    partial = spool.begin(3, "partial", description())
    put(partial, 0, 1, 2)
    partial.finalize()
    partial.close()
    spool.begin(3, "begun", description()).close()
    paths = [tmp_path / "spool", *(tmp_path / "spool").rglob("*")]
    modes = {path.name.partition(".")[0]: path.stat().st_mode & 0o777 for path in paths}
    assert modes == {"spool": 0o700, "3": 0o700, "whole": 0o600, "partial": 0o600, "begun": 0o600}


def test_only_what_has_the_form_of_the_spool_is_deleted(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(2, "7", content(DATA))
    (tmp_path / "spool" / "2" / "thesis.txt").write_text("mine")
    (tmp_path / "spool" / "photos").mkdir()
    (tmp_path / "spool" / "photos" / "7.update").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "7.update").write_text("mine")
    (tmp_path / "spool" / "4").symlink_to(tmp_path / "elsewhere")
    spool.delete_except((), {3})
    spool.delete_round(4)
    spool.delete_round(2)
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {"spool/2/thesis.txt", "spool/photos/7.update", "elsewhere/7.update"}
