"""A finished update on disk: what is written is read again, and what is of no use is found out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fl_edge.session.work import PendingUpdate
from fl_edge.storage import saved_file, update_store
from fl_edge.training.executor import TrainedUpdate
from fl_edge.workers.masked_result import MaskedRound
from fl_shared.protocol.messages import UpdateMetrics
from fl_shared.system.shared_memory import MemoryPool
from fl_shared.tensors.encodings.registry import ENCODINGS
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.sections import ModelSection
from tests.support.builders import finished_update
from tests.support.encodings import Float16
from tests.support.masked_edges import MaskedEdges
from tests.support.samples import DATA, MANIFEST
from tests.support.session_script import SessionScript, update
from tests.support.wait import wait_until


def finished(number: int = 3, *, base: str | None = "b" * 64) -> PendingUpdate:
    return PendingUpdate(SessionScript(kept=number).session.pending_update().selected, update(base=base))  # type: ignore[union-attr]


@pytest.mark.parametrize("base", ["b" * 64, None])
def test_what_is_written_is_read_again(tmp_path: Path, base: str | None) -> None:
    path, wanted = tmp_path / update_store.FILE_NAME, finished(base=base)
    update_store.write(path, "7", wanted)
    found = update_store.read(path, "7")
    assert found == wanted
    assert [entry.name for entry in tmp_path.iterdir()] == [update_store.FILE_NAME], "nothing beside it"
    assert np.array_equal(load_file(path)["delta"], np.frombuffer(DATA, "<f4")), "other tools can read it"


def test_sections_of_several_lengths(tmp_path: Path) -> None:
    path, one = tmp_path / update_store.FILE_NAME, finished()
    sections = (
        ModelSection("control", MANIFEST, DATA[::-1]),
        ModelSection("delta", MANIFEST, memoryview(DATA)),
    )
    both = finished_update(*sections, examples=1, steps=2, seconds=3.0, metrics=one.update.metrics)
    update_store.write(path, "7", PendingUpdate(one.selected, both))
    assert update_store.read(path, "7") == PendingUpdate(one.selected, both)


def test_10_4_a_masked_update_is_read_again_with_its_plan(tmp_path: Path) -> None:
    """A restarted edge sends the same one again. On the disk it is bytes, of which nothing can be read."""
    edges = MaskedEdges(tmp_path / "edges")
    selected = edges.selected()
    masking = edges.member("7").masking(selected, edges.partition("7"), edges.manifest)
    assert masking is not None
    trained = TrainedUpdate(np.zeros(8, np.float32), 10, 1, 1.0, UpdateMetrics())
    masked_round = MaskedRound(masking, "7", edges.partition("7"), edges.manifest)
    outcome = masked_round.outcome(trained, "accuracy", MemoryPool(), lambda: False)
    assert outcome.masked is not None
    made = finished_update(*outcome.update_sections(), examples=1, plan=outcome.masked.plan)
    path = tmp_path / update_store.FILE_NAME
    update_store.write(path, "7", PendingUpdate(selected, made))
    found = update_store.read(path, "7")
    assert found == PendingUpdate(selected, made)
    tensors = load_file(path)
    assert {name: str(data.dtype) for name, data in tensors.items()} == dict.fromkeys(
        ("delta", "shares", "tallies"), "uint8"
    )


def test_a_section_in_another_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its length is that of the encoding, and other tools see bytes."""
    monkeypatch.setitem(ENCODINGS, "f16", Float16())
    path, one = tmp_path / update_store.FILE_NAME, finished()
    half = SectionFormat.of("f16", MANIFEST).encode(np.frombuffer(DATA, "<f4"), seed=0)
    both = finished_update(
        ModelSection("control", MANIFEST, half, "f16"), ModelSection("delta", MANIFEST, DATA)
    )
    update_store.write(path, "7", PendingUpdate(one.selected, both))
    assert update_store.read(path, "7") == PendingUpdate(one.selected, both)
    assert load_file(path)["control"].tobytes() == half


def test_its_data_lives_on_when_it_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / update_store.FILE_NAME
    update_store.write(path, "7", finished())
    found = update_store.read(path, "7")
    saved_file.delete(path)
    saved_file.delete(path)
    assert found is not None
    assert bytes(found.update.sections[0].data) == DATA


def cut_off(data: bytes) -> bytes:
    return data[:-1]


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def longer(data: bytes) -> bytes:
    return data + b"\0" * 4


def without_metadata(data: bytes) -> bytes:
    return data.replace(b"__metadata__", b"__metadatum_")


def negative(data: bytes) -> bytes:
    return data.replace(b"steps", b"stepz")


@pytest.mark.parametrize(
    "damage",
    [
        cut_off,
        flipped,
        longer,
        without_metadata,
        negative,
        lambda _: b"",
        lambda _: b"junk",
        lambda _: b"\xff" * 100,
        lambda data: data[:8] + b"[" * (len(data) - 8),
        lambda data: data[:8] + b"\xff" * (len(data) - 8),
    ],
)
def test_what_is_damaged_is_removed(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / update_store.FILE_NAME
    update_store.write(path, "7", finished())
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert update_store.read(path, "7") is None
    assert not path.exists()
    assert "which is not usable" in caplog.text


def test_what_another_client_has_left_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / update_store.FILE_NAME
    update_store.write(path, "7", finished())
    assert update_store.read(path, "8") is None
    assert "client: '7', but this edge is '8'" in caplog.text
    assert not path.exists()


def test_where_nothing_can_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = update_store.UpdateWriter()
    writer.save(tmp_path / "missing" / update_store.FILE_NAME, "7", finished())
    writer.save(tmp_path / update_store.FILE_NAME, "7", finished())
    writer.close()
    assert "not written" in caplog.text
    assert (tmp_path / update_store.FILE_NAME).exists(), "it goes on with others"


def test_only_the_newest_wish_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the thread is busy with one file, another's update comes and is answered: that one is never written."""
    begun, go_on, written = threading.Event(), threading.Event(), []
    write = update_store.write

    def slow(path: Path, client: str, what: PendingUpdate) -> None:
        begun.set()
        assert go_on.wait(10)
        written.append((client, what.selected.round))
        write(path, client, what)

    monkeypatch.setattr(update_store, "write", slow)
    writer = update_store.UpdateWriter(delay=0.0)
    one, two, three = (tmp_path / name for name in "123")
    writer.save(one, "1", finished(1))
    assert begun.wait(10)
    writer.save(two, "2", finished(1))
    writer.delete(two)
    writer.save(three, "3", finished(1))
    writer.save(three, "3", finished(2))
    go_on.set()
    writer.close()
    assert written == [("1", 1), ("3", 2)]
    assert [path.exists() for path in (one, two, three)] == [True, False, True]


def test_what_is_answered_soon_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still without an answer when the program ends is written at once."""
    written = []
    monkeypatch.setattr(update_store, "write", lambda path, *_: written.append(path))
    one, two, three = (tmp_path / name for name in "123")
    three.touch()
    writer = update_store.UpdateWriter(delay=3600.0)
    writer.save(one, "1", finished(1))
    writer.save(two, "2", finished(1))
    writer.save(three, "3", finished(1))
    writer.delete(one)
    writer.delete(three)
    writer.close()
    assert written == [two]
    assert not three.exists()


def test_a_file_that_is_not_there_is_removed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most rounds of an edge end with the removal of a file that was never written."""
    removed: list[Path] = []

    def remove(path: Path) -> bool:
        removed.append(path)
        return saved_file.delete(path)

    monkeypatch.setattr(update_store, "delete", remove)
    file, writer = tmp_path / "file", update_store.UpdateWriter(delay=3600.0)
    for number in range(3):
        writer.save(file, "1", finished(number))
        writer.delete(file)
        wait_until(lambda: file in writer._absent, 20, "the file is removed")
    writer.save(file, "1", finished(3))
    writer.close()
    assert removed == [file]
    assert file not in writer._absent, "it was written at the end"


def test_a_later_request_does_not_hold_up_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Event()
    monkeypatch.setattr(update_store, "write", lambda *_: written.set())
    writer = update_store.UpdateWriter(delay=0.01)
    writer.save(tmp_path / "1", "1", finished(1))
    assert written.wait(60), "it is due while the program runs"
    writer.close()
