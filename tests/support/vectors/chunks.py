"""``chunks.json``: a model of two sections at the broker (3.6), and an update that is sent in chunks (section 6)."""

from __future__ import annotations

from typing import Any

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.publication import model_publication
from fl_shared.transfer.upload import FinishedUpdate, Sender, chunk_message, offer_message, update_message
from tests.support.observation_samples import RUN
from tests.support.samples import DATA, DIGEST, MANIFEST, UPDATE_DIGEST
from tests.support.vectors.messages import content

CHUNK_SIZE = 10
"""Bytes: a chunk ends within a value, and one spans both sections."""


def vectors() -> dict[str, Any]:
    """The model and the update."""
    sections = (ModelSection("control", MANIFEST, DATA[::-1]), ModelSection("weights", MANIFEST, DATA))
    model = model_publication(sections, CHUNK_SIZE)
    scope: dict[str, Any] = {"run": RUN, "incarnation": 1, "seq": 9}
    digest12 = model.digest[:12]
    sender = Sender("7", "c3d4", RUN, 1, 3)
    update = FinishedUpdate(
        DIGEST,
        UPDATE_DIGEST,
        57,
        20,
        0.25,
        m.UpdateMetrics(),
        (ModelSection("delta", MANIFEST, DATA),),
    )
    updates = t.UpdatesTopic("7")
    return {
        "model": {
            "digest": model.digest,
            "manifest": _message(t.ManifestTopic(digest12), model.manifest(**scope)),
            "chunks": [
                _message(t.ChunkTopic(digest12, i), model.chunk(i, **scope)) for i in range(model.chunks)
            ],
        },
        "update": {
            "whole": _message(updates, update_message(sender, 2, update)),
            "offer": _message(updates, offer_message(sender, 3, update, CHUNK_SIZE)),
            "chunks": [
                _message(updates, chunk_message(sender, 4 + i, update, CHUNK_SIZE, i)) for i in range(2)
            ],
        },
    }


def _message(topic: t.Topic, message: m.Message) -> dict[str, Any]:
    # Validated again: what is made for sending may hold views in the place of bytes.
    read = codec.decode(topic, payload := codec.encode(message))
    return {"topic": t.build("fl", topic), "payload": payload.hex(), "content": content(read)}
