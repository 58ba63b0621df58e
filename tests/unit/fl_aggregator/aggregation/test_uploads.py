"""Updates that come in chunks, on the aggregator's side; `docs/protocol.md`, section 6."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_aggregator.aggregation.uploads import InvalidChunk, Uploads
from fl_aggregator.aggregation.validation import InvalidUpdate
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.storage.disk_space import DiskFull
from fl_aggregator.storage.spool import Spool
from fl_shared.protocol import messages as m
from fl_shared.tensors.digest import ContentDigests
from fl_shared.transfer.upload_scheduler import ChunkGrant
from tests.support import builders

CHUNK = 1024
DATA = np.random.default_rng(1).bytes(5 * CHUNK + 100)
MANIFEST = "ab" * 32
DIGEST = builders.digest_of(MANIFEST, DATA)
KNOWN = ContentDigests(DIGEST, DIGEST)
UPDATE = builders.update(builders.section(DATA, MANIFEST), base=DIGEST, examples=5)


def offer(*, size: int = len(DATA), chunk_size: int = CHUNK, chunks: int = 6) -> m.Offer:
    section = m.OfferedSection(name="delta", encoding="f32", manifest=MANIFEST, size=size)
    return builders.offer_of(UPDATE, chunk_size, sections=(section,), size=size, chunks=chunks)


def facts(size: int = len(DATA)) -> UpdateMetadata:
    return builders.facts_of(UPDATE, size=size)


def chunk(index: int, **changes: Any) -> m.UpdateChunk:
    return builders.chunk_of(UPDATE, CHUNK, index, **changes)


@pytest.fixture
def granted() -> list[ChunkGrant]:
    return []


@pytest.fixture
def uploads(tmp_path: Path, granted: list[ChunkGrant]) -> Uploads:
    return Uploads(Spool(tmp_path), granted.append)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4], [1, 1, 0, 5, 4, 4, 3, 2]])
def test_in_any_order_it_is_the_update_and_its_digest(
    uploads: Uploads, granted: list[ChunkGrant], tmp_path: Path, order: list[int]
) -> None:
    uploads.begin(offer(), facts(), 0.0)
    assert [grant.chunks for grant in granted] == [(0, 1, 2, 3, 4, 5)]
    complete = [uploads.receive_chunk(chunk(index), 0.0) for index in order]
    assert complete == [None] * (len(order) - 1) + [facts()]
    taken = uploads.pop_complete("7")
    assert taken.content().known == KNOWN
    assert bytes(taken.content().sections[0].data) == DATA
    taken.partial.finalize()
    uploads.release(taken, 0.0, drop=False)
    assert Spool(tmp_path).get(3, "7") == DATA


def test_a_chunk_that_was_granted_twice_may_come_after_the_end(uploads: Uploads) -> None:
    """On a slow link, each of the two answers comes; only the first one is needed."""
    uploads.begin(offer(), facts(), 0.0)
    for index in range(6):
        uploads.receive_chunk(chunk(index), 0.0)
    uploads.release(uploads.pop_complete("7"), 0.0, drop=True)
    assert uploads.receive_chunk(chunk(5), 1.0) is None
    with pytest.raises(InvalidChunk, match="no update of this client"):
        uploads.receive_chunk(chunk(5, digest="e" * 64), 1.0)
    uploads.end_round()
    assert uploads.receive_chunk(chunk(5), 2.0) is None


def test_what_does_not_fit_is_not_kept(uploads: Uploads) -> None:
    """6.6."""
    with pytest.raises(InvalidChunk, match="no update of this client"):
        uploads.receive_chunk(chunk(0), 0.0)
    uploads.begin(offer(), facts(), 0.0)
    with pytest.raises(InvalidChunk, match="wrong-size"):
        uploads.receive_chunk(chunk(0, data=DATA[: CHUNK - 1]), 0.0)
    with pytest.raises(InvalidChunk, match="not-granted"):
        uploads.receive_chunk(chunk(6, data=b"x"), 0.0)
    assert all(uploads.receive_chunk(chunk(index), 0.0) is None for index in range(5))
    assert uploads.receive_chunk(chunk(5), 0.0) == facts()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"chunks": 5}, "chunks: 5"),
        ({"chunk_size": 512, "chunks": 11}, "chunk_size: 512"),
    ],
)
def test_an_offer_that_contradicts_itself_is_refused(
    uploads: Uploads, wrong: dict[str, int], said: str
) -> None:
    with pytest.raises(InvalidUpdate, match=said):
        uploads.begin(offer(**wrong), facts(), 0.0)


def test_the_same_digest_with_another_size_is_another_upload(uploads: Uploads) -> None:
    uploads.begin(offer(), facts(), 0.0)
    uploads.receive_chunk(chunk(0), 0.0)
    uploads.begin(offer(size=9 * CHUNK, chunks=9), facts(9 * CHUNK), 1.0)
    for index in range(9):
        complete = uploads.receive_chunk(chunk(index, data=bytes(CHUNK)), 1.0)
    assert complete == facts(9 * CHUNK)
    assert uploads.pop_complete("7").content().known != KNOWN


# --- what an earlier life of the aggregator took in ---------------------------------------------------------


def died(tmp_path: Path, *indices: int) -> None:
    """The aggregator has taken these chunks, and is no more."""
    uploads = Uploads(Spool(tmp_path), lambda _: None)
    uploads.begin(offer(), facts(), 0.0)
    for index in indices:
        uploads.receive_chunk(chunk(index), 0.0)


def test_only_what_had_not_come_is_granted_after_a_restart(
    uploads: Uploads, granted: list[ChunkGrant], tmp_path: Path
) -> None:
    """6.4."""
    died(tmp_path, 4, 0, 1)
    uploads.restore(3)
    assert uploads.begin(offer(), facts(), 0.0) is None
    assert [grant.chunks for grant in granted] == [(2, 3, 5)]
    assert uploads.receive_chunk(chunk(0), 0.0) is None, "a duplicate"
    assert [uploads.receive_chunk(chunk(index), 0.0) for index in (5, 3, 2)] == [None, None, facts()]
    taken = uploads.pop_complete("7")
    assert taken.content().known == KNOWN
    assert bytes(taken.content().sections[0].data) == DATA
    taken.partial.finalize()
    uploads.release(taken, 0.0, drop=False)
    assert Spool(tmp_path).get(3, "7") == DATA


def test_an_upload_of_which_all_had_come_is_complete_when_it_is_offered(
    uploads: Uploads, granted: list[ChunkGrant], tmp_path: Path
) -> None:
    died(tmp_path, *range(6))
    uploads.restore(3)
    assert uploads.begin(offer(), facts(), 0.0) == facts()
    assert granted == []
    assert uploads.pop_complete("7").content().known == KNOWN


@pytest.mark.parametrize("other", ["digest", "chunk_size", "manifest"])
def test_what_was_found_of_another_update_is_thrown_away(
    uploads: Uploads, granted: list[ChunkGrant], tmp_path: Path, other: str
) -> None:
    died(tmp_path, 0, 1)
    uploads.restore(3)
    section = offer().sections[0].model_copy(update={"manifest": "cd" * 32})
    ways: dict[str, dict[str, Any]] = {
        "digest": {"digest": "cd" * 32},
        "chunk_size": {"chunk_size": 2 * CHUNK, "chunks": 3},
        "manifest": {"sections": (section,)},
    }
    another = offer().model_copy(update=ways[other])
    uploads.begin(another, facts(), 0.0)
    assert [grant.chunks for grant in granted] == [tuple(range(another.chunks))]
    assert list((tmp_path / "spool" / "3").iterdir()) == []


def test_a_digest_that_is_wrong_after_a_restart_asks_for_all_of_it_once_more(
    uploads: Uploads, granted: list[ChunkGrant], tmp_path: Path
) -> None:
    died(tmp_path, 0)
    uploads.restore(3)
    uploads.begin(offer(), facts(), 0.0)
    for index in range(1, 6):
        complete = uploads.receive_chunk(chunk(index), 0.0)
    assert complete == facts()
    taken = uploads.pop_complete("7")
    assert not taken.again
    granted.clear()
    uploads.restart(taken, 1.0)
    assert [grant.chunks for grant in granted] == [(0, 1, 2, 3, 4, 5)]
    assert list((tmp_path / "spool" / "3").iterdir()) == []
    assert [uploads.receive_chunk(chunk(index), 1.0) for index in range(6)][-1] == facts()
    assert uploads.pop_complete("7").again, "another wrong digest is the edge's own"


def test_the_end_of_the_round_drops_what_was_found(uploads: Uploads, tmp_path: Path) -> None:
    died(tmp_path, 0)
    uploads.restore(3)
    assert uploads.end_round() == (), "nobody has offered it"
    assert list((tmp_path / "spool" / "3").iterdir()) == []


def test_no_room_for_a_chunk_changes_nothing(
    uploads: Uploads, granted: list[ChunkGrant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    uploads.begin(offer(), facts(), 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        for _ in range(2):
            with pytest.raises(DiskFull):
                uploads.receive_chunk(chunk(0), 0.0)
    assert [uploads.receive_chunk(chunk(index), 0.0) for index in range(6)][-1] == facts()
    assert len(granted) == 1


def test_the_end_of_the_round_drops_what_is_under_way(uploads: Uploads, tmp_path: Path) -> None:
    uploads.begin(offer(), facts(), 0.0)
    uploads.receive_chunk(chunk(0), 0.0)
    assert uploads.end_round() == (facts(),)
    assert uploads.receive_chunk(chunk(1), 0.0) is None, "it was on its way"
    assert list((tmp_path / "spool" / "3").iterdir()) == []
