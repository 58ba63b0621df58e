"""Updates that come in chunks, on the aggregator's side; `docs/protocol.md`, section 6."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_aggregator.events import UpdateFacts
from fl_aggregator.spool import Spool
from fl_aggregator.uploads import Misfit, Uploads
from fl_shared import messages as m
from fl_shared.intake import Granted
from fl_shared.tensors import content_digest

CHUNK = 1024
DATA = np.random.default_rng(1).bytes(5 * CHUNK + 100)
MANIFEST = "ab" * 32
DIGEST = content_digest([("weights", "f32", MANIFEST, DATA)])
HEAD: dict[str, Any] = {"run": "r", "epoch": 1, "seq": 1, "client": "7", "session": "s", "round": 3}


def offer(*, size: int = len(DATA), chunk_size: int = CHUNK, chunks: int = 6) -> m.Offer:
    section = m.OfferedSection(name="weights", encoding="f32", manifest=MANIFEST, size=size)
    return m.Offer(
        **HEAD, base=DIGEST, digest=DIGEST, examples=5, steps=1, seconds=0.0, metrics=m.UpdateMetrics(),
        sections=(section,), size=size, chunk_size=chunk_size, chunks=chunks,
    )  # fmt: skip


def facts(size: int = len(DATA)) -> UpdateFacts:
    return UpdateFacts(
        client="7", session="s", round=3, base=DIGEST, digest=DIGEST, manifest=MANIFEST, examples=5, steps=1,
        size=size,
    )  # fmt: skip


def part(index: int, data: bytes | None = None, crc32: int | None = None) -> m.UpdateChunk:
    data = DATA[index * CHUNK : (index + 1) * CHUNK] if data is None else data
    return m.UpdateChunk(
        **HEAD, digest=DIGEST, index=index, crc32=zlib.crc32(data) if crc32 is None else crc32, data=data
    )


@pytest.fixture
def granted() -> list[Granted]:
    return []


@pytest.fixture
def uploads(tmp_path: Path, granted: list[Granted]) -> Uploads:
    return Uploads(Spool(tmp_path), granted.append)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4], [1, 1, 0, 5, 4, 4, 3, 2]])
def test_in_any_order_it_is_the_update_and_its_digest(
    uploads: Uploads, granted: list[Granted], tmp_path: Path, order: list[int]
) -> None:
    uploads.begin(offer(), facts(), 0.0)
    assert [grant.chunks for grant in granted] == [(0, 1, 2, 3, 4, 5)]
    complete = [uploads.take(part(index), 0.0) for index in order]
    assert complete == [None] * (len(order) - 1) + [facts()]
    taken = uploads.take_out("7")
    assert taken.content().found == DIGEST
    assert bytes(taken.content().sections[0].data) == DATA
    taken.partial.keep()
    uploads.put_away(taken, 0.0, drop=False)
    assert (tmp_path / "spool" / "3" / "7.update").read_bytes() == DATA


def test_what_does_not_fit_is_not_kept(uploads: Uploads) -> None:
    """6.6."""
    with pytest.raises(Misfit, match="not being sent"):
        uploads.take(part(0), 0.0)
    uploads.begin(offer(), facts(), 0.0)
    with pytest.raises(Misfit, match="crc32"):
        uploads.take(part(0, crc32=1), 0.0)
    with pytest.raises(Misfit, match="wrong-size"):
        uploads.take(part(0, data=DATA[: CHUNK - 1]), 0.0)
    with pytest.raises(Misfit, match="not-granted"):
        uploads.take(part(6, data=b"x"), 0.0)
    assert all(uploads.take(part(index), 0.0) is None for index in range(5))
    assert uploads.take(part(5), 0.0) == facts()


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
    with pytest.raises(Misfit, match=said):
        uploads.begin(offer(**wrong), facts(), 0.0)


def test_the_same_digest_with_another_size_is_another_upload(uploads: Uploads) -> None:
    uploads.begin(offer(), facts(), 0.0)
    uploads.take(part(0), 0.0)
    uploads.begin(offer(size=9 * CHUNK, chunks=9), facts(9 * CHUNK), 1.0)
    for index in range(9):
        complete = uploads.take(part(index, data=bytes(CHUNK)), 1.0)
    assert complete == facts(9 * CHUNK)
    assert uploads.take_out("7").content().found != DIGEST


def test_the_end_of_the_round_drops_what_is_under_way(uploads: Uploads, tmp_path: Path) -> None:
    uploads.begin(offer(), facts(), 0.0)
    uploads.take(part(0), 0.0)
    assert uploads.end_round() == (facts(),)
    assert list((tmp_path / "spool" / "3").iterdir()) == []
    with pytest.raises(Misfit):
        uploads.take(part(1), 0.0)
