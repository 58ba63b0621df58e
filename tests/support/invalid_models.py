"""Models that an edge must not train: with wrong chunks, wrong values, wrong shapes and false claims."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import msgpack
import numpy as np

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.publication import ModelPublication, model_publication
from tests.support.edge_under_test import CHUNK, EdgeUnderTest
from tests.support.simulated_aggregator import SimulatedAggregator
from tests.support.wait import wait_until

DEEP = b"\x81\xa4kind" + b"\x91" * 1020 + b"\xc0"
LARGEST = {
    "sections": [
        {
            "name": "weights",
            "encoding": "f32",
            "arrays": [{"name": "x", "shape": [2**29], "role": "parameter"}],
            "size": 2**31,
        }
    ],
    "size": 2**31,
    "chunk_size": 2**24,
    "chunks": 2**7,
}
"""The manifest of the largest model that anybody takes."""


def bad_models(tested: EdgeUnderTest) -> None:
    """Models that are none: the edge says that it cannot train, and why, or waits for what is right."""
    wire = tested.wire

    # A chunk of another length: it is dropped, and the right one taken.
    model = other_model(tested, 0.25)
    put(tested, model, {1: {"data": b"short"}})
    number = tested.select(model.digest)
    wait_until(lambda: "chunk 1: 5 bytes" in tested.edge.err, 10, "a word on the length")
    wire.expect_silence(m.TrainingFailed, 0.2)
    wire.send(t.ChunkTopic(model.digest[:12], 1), model.chunk(1, **wire.envelope()), retain=True)
    update = wire.expect(m.Update, 15, round=number)
    assert update.base == model.digest
    wire.answer(update)

    # Every chunk, but not those of this model.
    model = other_model(tested, 0.5)
    stolen = other_model(tested, 0.75)
    put(tested, model, {n: chunk_of(stolen, n, wire) | {"digest": model.digest} for n in range(4)})
    tested.expect_failure(tested.select(model.digest), "digest is not the model's")

    # What is no number.
    weights = tested.weights.copy()
    weights[5] = np.nan
    model = of_vector(tested, weights)
    put(tested, model)
    tested.expect_failure(tested.select(model.digest), "value 5 is nan", "expected a finite number")

    # Another model than this task's.
    model = model_publication(
        [ModelSection("weights", Manifest(arrays=(ArraySpec(name="x", shape=(10,)),)), bytes(40))], CHUNK
    )
    put(tested, model)
    tested.expect_failure(tested.select(model.digest), "10 values", "expected 1000")

    # Manifests that claim what cannot be, and the most that they can: room is made for what comes, not for claims.
    before = tested.rss()
    absurd: tuple[tuple[dict[str, Any], str | None], ...] = (
        (
            {"size": 2**40, "chunks": 2**16, "chunk_size": 2**24},
            "size: 1099511627776 bytes, expected at most",
        ),
        ({"chunks": 10**9}, "chunks: "),
        ({"chunk_size": 2**30}, "chunk_size: "),
        ({"size": 2**63}, "size: "),
        ({}, None),
    )
    for number, (claims, words) in enumerate(absurd):
        model = other_model(tested, 2.0 + number)
        put(tested, model, manifest=LARGEST | claims)
        base = tested.select(model.digest)
        if words is not None:
            wait_until(partial(tested.logged, words), 10, f"a word on {words}")
        wire.expect_silence(m.TrainingFailed, 0.2)
        clear_until_given_up(tested, model, base)
        tested.expect_failure(base, "superseded")
    assert tested.rss() - before < 30 * 2**20

    # Bombs.
    model = other_model(tested, 0.125)
    number = tested.select(model.digest)

    def bombed() -> bool:
        tested.say(t.ManifestTopic(model.digest[:12]), DEEP)
        tested.say(t.ChunkTopic(model.digest[:12], 0), b"\x81\xa1x" + b"\xdd\xff\xff\xff\xff")
        return tested.has_failed(number)

    wait_until(bombed, 10, "its giving up")
    tested.expect_failure(number, "16 messages were not valid")


def clear_until_given_up(tested: EdgeUnderTest, model: ModelPublication, number: int) -> None:
    """Again and again, since the first time may be before the edge has subscribed."""

    def given_up() -> bool:
        tested.wire.clear(t.ManifestTopic(model.digest[:12]))
        tested.wire.clear(t.ChunkTopic(model.digest[:12], 0))
        return tested.has_failed(number)

    wait_until(given_up, 10, "its giving up")


def of_vector(tested: EdgeUnderTest, weights: Vector) -> ModelPublication:
    return model_publication(
        [ModelSection("weights", tested.manifest, weights.astype("<f4").tobytes())], CHUNK
    )


def other_model(tested: EdgeUnderTest, shift: float) -> ModelPublication:
    return of_vector(tested, tested.weights + np.float32(shift))


def chunk_of(model: ModelPublication, index: int, wire: SimulatedAggregator) -> dict[str, Any]:
    chunk = model.chunk(index, **wire.envelope())
    return chunk.model_dump(exclude={"data"}) | {"data": bytes(chunk.data)}


def put(
    tested: EdgeUnderTest,
    model: ModelPublication,
    chunks: dict[int, dict[str, Any]] | None = None,
    manifest: dict[str, Any] | None = None,
) -> None:
    """Retained, with these members in place of its own."""
    short, wire = model.digest[:12], tested.wire
    for index in range(model.chunks):
        chunk = chunk_of(model, index, wire) | (chunks or {}).get(index, {})
        tested.say(t.ChunkTopic(short, index), cast(bytes, msgpack.packb(chunk)), retain=True)
    fields = model.manifest(**wire.envelope()).model_dump() | (manifest or {})
    tested.say(t.ManifestTopic(short), cast(bytes, msgpack.packb(fields)), retain=True)
