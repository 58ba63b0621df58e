"""What is done with the bytes of updates, on its thread; and what is done again after a restart or a full disk."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_aggregator.round import events as on
from fl_aggregator.storage.checkpoint import Checkpoints, read_safetensors
from fl_aggregator.storage.initial_weights import PlainWeights
from fl_shared.protocol import messages as m
from fl_shared.tensors.manifest import Vector, flatten
from fl_shared.tensors.sections import WEIGHTS, ModelSection, model_digest
from tests.support import builders
from tests.support.aggregation_harness import BASE, CHUNK, REFERENCE, Incarnation
from tests.support.builders import facts_of

Incarnations = Callable[..., Incarnation]


@pytest.fixture
def incarnations(tmp_path: Path) -> Iterator[Incarnations]:
    """The next incarnation in the same directory: the one before ends."""
    now: list[Incarnation] = []

    def next_incarnation(version: int | None = 0) -> Incarnation:
        if now:
            now.pop().end()
        now.append(Incarnation(tmp_path / "run", version))
        return now[0]

    yield next_incarnation
    now.pop().end()


def update(client: str, seed: int, base: str | None = BASE.digest) -> m.Update:
    values: Vector = (np.random.default_rng(seed).normal(size=1507) * 0.1).astype("<f4")
    manifest = BASE.manifest
    section = builders.section(values.tobytes(), manifest, arrays=manifest.arrays if base is None else None)
    return builders.update(
        section, client=client, round=0 if base is None else 1, base=base, examples=10 + seed
    )


def offer_of(update: m.Update) -> m.Offer:
    section = m.OfferedSection(
        **update.sections[0].model_dump(exclude={"data", "arrays"}), size=len(update.sections[0].data)
    )
    return builders.offer_of(update, CHUNK, sections=(section,))


def send(incarnation: Incarnation, update: m.Update, *indices: int) -> on.UpdateMetadata | None:
    complete = None
    for index in indices:
        complete = incarnation.worker.uploads.receive_chunk(builders.chunk_of(update, CHUNK, index), 0.0)
    return complete


UPDATES = (update("0", 1), update("1", 2), update("2", 3))
ALL = tuple(map(facts_of, UPDATES))


@pytest.fixture
def undisturbed(tmp_path: Path) -> str:
    incarnation = Incarnation(tmp_path / "undisturbed", 0)
    incarnation.worker.begin_round(REFERENCE, "f32")
    digest = incarnation.average(incarnation.accept(*UPDATES))
    incarnation.end()
    return digest


# --- initial weights that the user gives ----------------------------------------------------------------


def test_plain_weights_take_the_place_of_the_values_of_the_edge(incarnations: Incarnations) -> None:
    made = update("3", 4, base=None)
    given = {array.name: np.full(array.shape, i, "<f8") for i, array in enumerate(BASE.manifest.arrays)}
    incarnation = incarnations(None)
    incarnation.worker.averager.plain_weights = PlainWeights(Path("file"), "", given, ())
    incarnation.worker.begin_round(None, "f32")
    incarnation.average(incarnation.accept(made), 0, 0)
    read = read_safetensors(incarnation.directory.checkpoints.version_path(0))
    assert read.manifest == BASE.manifest
    assert read.weights.tolist() == flatten(given, BASE.manifest).tolist()


def test_the_fold_of_an_update_that_came_whole_does_not_wake_the_loop(incarnations: Incarnations) -> None:
    incarnation = incarnations()
    incarnation.worker.begin_round(REFERENCE, "f32")
    incarnation.accept(*UPDATES)
    incarnation.worker._executor.shutdown(wait=True)
    assert incarnation.done.empty()


# --- after a restart ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("accepted", [0, 1, 2, 3])
def test_what_was_accepted_is_folded_again_and_the_model_is_the_same(
    incarnations: Incarnations, undisturbed: str, accepted: int
) -> None:
    first = incarnations()
    first.worker.begin_round(REFERENCE, "f32")
    held = first.accept(*UPDATES[:accepted])
    second = incarnations()
    second.worker.begin_round(REFERENCE, "f32")
    assert second.worker.restore(1, reversed(held)) == ()
    second.accept(*UPDATES[accepted:])
    assert second.average(ALL) == undisturbed


def test_the_first_weights_are_taken_up_again(incarnations: Incarnations) -> None:
    """Nothing but their own file knows what arrays they are made of."""
    weights = update("3", 4, base=None)
    first = incarnations(None)
    first.worker.begin_round(None, "f32")
    held = first.accept(weights)
    second = incarnations(None)
    second.worker.begin_round(None, "f32")
    assert second.worker.restore(0, held) == ()
    section = ModelSection(WEIGHTS, BASE.manifest, weights.sections[0].data)
    assert second.average(held, 0, 0) == model_digest([section])
    read = read_safetensors(Checkpoints(second.directory.path).version_path(0))
    assert read.manifest == BASE.manifest
    assert read.weights.tobytes() == weights.sections[0].data


@pytest.mark.parametrize("how", ["gone", "cut", "a bit", "another's", "its description"])
def test_an_update_that_is_not_what_was_accepted_is_told_and_sent_again(
    incarnations: Incarnations, undisturbed: str, how: str
) -> None:
    first = incarnations()
    first.worker.begin_round(REFERENCE, "f32")
    held = first.accept(*UPDATES)
    folder = first.directory.path / "spool" / "1"
    path, whole = folder / "1.update", (folder / "1.update").read_bytes()
    path.write_bytes(
        {
            "gone": b"",
            "cut": whole[:-100],
            "a bit": whole[:500] + bytes([whole[500] ^ 1]) + whole[501:],
            "another's": (folder / "0.update").read_bytes(),
            "its description": whole.replace(b'"f32"', b'"f16"'),
        }[how]
    )
    if how == "gone":
        path.unlink()
    second = incarnations()
    second.worker.begin_round(REFERENCE, "f32")
    assert second.worker.restore(1, held) == ("1",)
    assert sorted(path.name for path in folder.iterdir()) == ["0.update", "2.update"]
    second.accept(UPDATES[1])
    assert second.average(ALL) == undisturbed


def test_an_upload_goes_on_where_it_was(incarnations: Incarnations, undisturbed: str) -> None:
    first = incarnations()
    first.worker.begin_round(REFERENCE, "f32")
    held = first.accept(*UPDATES[:2])
    third = UPDATES[2]
    assert first.worker.receive(offer_of(third), facts_of(third), 0.0) is None
    send(first, third, 0, 3, 4)
    second = incarnations()
    second.worker.begin_round(REFERENCE, "f32")
    assert second.worker.restore(1, held) == ()
    assert second.worker.receive(offer_of(third), facts_of(third), 0.0) is None
    assert [grant.chunks for grant in second.granted] == [(1, 2, 5)]
    assert send(second, third, 1, 2, 5) == facts_of(third)
    second.worker.store(facts_of(third), None)
    assert isinstance(second.next().event, on.UpdateStored)
    second.next()
    assert second.average(ALL) == undisturbed


def test_an_upload_whose_file_lies_about_it_is_sent_anew(
    incarnations: Incarnations, undisturbed: str
) -> None:
    """All chunks are here, and still it is not the update: that is not the edge's fault, as far as we know."""
    first = incarnations()
    first.worker.begin_round(REFERENCE, "f32")
    third = UPDATES[2]
    wrong = update("2", 99).model_copy(update={"digest": third.digest})
    first.worker.receive(offer_of(third), facts_of(third), 0.0)
    send(first, wrong, *range(6))
    second = incarnations()
    second.worker.begin_round(REFERENCE, "f32")
    second.worker.restore(1, ())
    assert second.worker.receive(offer_of(third), facts_of(third), 0.0) == facts_of(third)
    second.worker.store(facts_of(third), None)
    done = second.next()
    assert (done.event, done.resend) == (None, True)
    assert [grant.chunks for grant in second.granted] == [(0, 1, 2, 3, 4, 5)]
    assert send(second, third, *range(6)) == facts_of(third)
    second.worker.store(facts_of(third), None)
    assert isinstance(second.next().event, on.UpdateStored)
    second.next()
    second.accept(*UPDATES[:2])
    assert second.average(ALL) == undisturbed


def test_the_second_wrong_digest_is_the_edges(incarnations: Incarnations) -> None:
    first = incarnations()
    first.worker.begin_round(REFERENCE, "f32")
    third = UPDATES[2]
    wrong = update("2", 99).model_copy(update={"digest": third.digest})
    first.worker.receive(offer_of(third), facts_of(third), 0.0)
    for expected in (None, on.UpdateInvalid):
        assert send(first, wrong, *range(6)) is not None
        first.worker.store(facts_of(third), None)
        event = first.next().event
        assert isinstance(event, expected) if expected else event is None


# --- a full disk --------------------------------------------------------------------------------------------


def full_at_first(monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
    """``Path``'s method finds no room, so many times."""
    real, left = getattr(Path, name), [times]

    def method(path: Path, *arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, *arguments)

    monkeypatch.setattr(Path, name, method)


@pytest.mark.parametrize("whole", [True, False])
def test_an_update_that_finds_no_room_is_kept_as_soon_as_there_is(
    incarnations: Incarnations, undisturbed: str, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    incarnation = incarnations()
    incarnation.worker.begin_round(REFERENCE, "f32")
    incarnation.accept(*UPDATES[:2])
    full_at_first(monkeypatch, "replace" if whole else "rename", 3)
    if whole:
        incarnation.accept(UPDATES[2])
    else:
        incarnation.worker.receive(offer_of(UPDATES[2]), ALL[2], 0.0)
        send(incarnation, UPDATES[2], *range(6))
        incarnation.worker.store(ALL[2], None)
        assert isinstance(incarnation.next().event, on.UpdateStored)
        incarnation.next()
    assert len(incarnation.full) == 3
    assert incarnation.average(ALL) == undisturbed


def test_a_model_that_finds_no_room_is_not_lost(
    incarnations: Incarnations, undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    incarnation = incarnations()
    incarnation.worker.begin_round(REFERENCE, "f32")
    incarnation.accept(*UPDATES)
    full_at_first(monkeypatch, "replace", 3)
    assert incarnation.average(ALL) == undisturbed
    assert [(full.directory.name, full.needed_bytes) for full in incarnation.full] == [
        ("checkpoints", 4 * 1507)
    ] * 3
    assert read_safetensors(incarnation.directory.checkpoints.version_path(1)).digest == undisturbed
    assert incarnation.worker.averager.previous is not None
    assert incarnation.worker.averager.previous.digest == BASE.digest


def test_another_error_of_the_disk_ends_the_run(
    incarnations: Incarnations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    incarnation = incarnations()
    incarnation.worker.begin_round(REFERENCE, "f32")
    monkeypatch.setattr(Path, "replace", broken)
    incarnation.worker.store(ALL[0], UPDATES[0])
    done = incarnation.done.get(timeout=20)
    assert isinstance(done.error, OSError)
    assert done.error.errno == errno.EROFS


@pytest.mark.parametrize("chunked", [True, False])
def test_an_update_that_is_checked_while_its_round_closes_leaves_nothing(
    incarnations: Incarnations, chunked: bool
) -> None:
    """The round's spool is deleted at once; the thread may still have a check of one of its updates before it."""
    tested = incarnations()
    tested.worker.begin_round(REFERENCE, "f32")
    first = UPDATES[0]
    go_on = threading.Event()
    tested.worker._executor.submit(go_on.wait)
    if chunked:
        tested.worker.receive(offer_of(first), facts_of(first), 0.0)
        assert send(tested, first, *range(6)) == facts_of(first)
    tested.worker.store(facts_of(first), None if chunked else first)
    tested.directory.spool.delete_round(1)
    tested.worker.uploads.end_round()
    go_on.set()
    done = tested.done.get(timeout=20)
    assert done.error is None
    tested.worker.release(done, 0.0)  # the machine has not ordered a fold: the round is over
    assert tested.worker.in_progress() == frozenset()
    assert [path for path in (tested.directory.path / "spool").rglob("*") if path.is_file()] == []
