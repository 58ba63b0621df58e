"""The messages that a correct aggregator sends to edges."""

from __future__ import annotations

import random
from typing import Any, Final

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.publication import ModelPublication, model_publication
from tests.support.builders import fold_settings, partition, training_request

VALUES: Final = 2_000
CHUNK: Final = 3_000
TASK: Final = f"synthetic-{VALUES}"
CLIENT: Final = "edge-1"
PARTITION: Final = partition(1, count=4)
MANIFEST: Final = Manifest(
    arrays=(
        ArraySpec(name="body", shape=(VALUES - VALUES // 10,)),
        ArraySpec(name="head", shape=(VALUES // 10,)),
    )
)
ENCODINGS: Final = ("f32", "bf16", "q8", "shuffle-deflate", "topk:0.01", "topk:0.5")
MODELS: Final = 2
"""How many models follow the first one, so that edges have something to fetch."""

Sent = tuple[t.Topic, m.Message]


class AggregatorMessages:
    """The messages of one run's aggregator."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.run = "run0"
        self._seq = 0

    def envelope(self) -> dict[str, Any]:
        self._seq += 1
        return {"run": self.run, "incarnation": 1, "seq": self._seq}

    def model(self) -> ModelPublication:
        """A new model with finite values, in either encoding of models."""
        encoding, size = self.rng.choice((("f32", 4), ("bf16", 2)))
        data = self.rng.randbytes(size * VALUES).replace(b"\x7f", b"\x3f").replace(b"\xff", b"\xbf")
        return model_publication([ModelSection("weights", MANIFEST, data, encoding)], CHUNK)

    def birth(self) -> m.Message:
        return m.AggregatorPresence(state="online", session=f"s{self._seq}", run=self.run, incarnation=1)

    def admitted(
        self, client: str, session: str, partition: m.Partition | None, examples: int | None
    ) -> m.Message:
        return m.Admitted(
            **self.envelope(), client=client, session=session, task=TASK, partition=partition, examples=examples
        )  # fmt: skip

    def selected(self, number: int, base: ModelPublication) -> m.Message:
        return m.Selected(
            **self.envelope(), round=number, task=TASK, cohort=(CLIENT, "other"), seconds_left=60.0,
            training=training_request(epochs=1, batch_size=8, lr=0.1, momentum=0.0),
            fold=fold_settings(max_delta=10.0, scale_bits=30),
            encoding=self.rng.choice(ENCODINGS),
            base=m.ModelReference(version=number - 1, digest=base.digest),
            inline_limit=self.rng.choice((0, 100_000)),
        )  # fmt: skip

    def announcement(self, version: int, model: ModelPublication) -> m.Message:
        return m.ModelAnnouncement(
            **self.envelope(), task=TASK, round=version, version=version, digest=model.digest,
            chunks=model.chunks, size=model.size, evaluate=self.rng.choice(("test", "holdout", None)),
        )  # fmt: skip

    def pieces(self, model: ModelPublication) -> list[Sent]:
        """The messages of a model: its manifest, then its chunks."""
        *places, manifest = model.topics()
        chunks = [model.chunk(index, **self.envelope()) for index in range(model.chunks)]
        return [(manifest, model.manifest(**self.envelope())), *zip(places, chunks, strict=True)]

    def answers(self, session: str, number: int, digest: str) -> tuple[m.Grant, m.Accepted, m.Rejected]:
        """The answers to an edge's update."""
        head: dict[str, Any] = {"client": CLIENT, "session": session, "round": number, "digest": digest}
        return (
            m.Grant(**self.envelope(), **head, chunks=(0, 1)),
            m.Accepted(**self.envelope(), **head),
            m.Rejected(**self.envelope(), **head, reason="late", detail="too late"),
        )

    def all_messages(self, number: int, session: str, model: ModelPublication) -> list[Sent]:
        """All messages from round ``number`` on, after ``model``."""
        replies = t.RepliesTopic(CLIENT)
        found: list[Sent] = [
            (t.AggregatorTopic(), self.birth()),
            (replies, self.admitted(CLIENT, session, PARTITION, None)),
            (replies, self.admitted(CLIENT, session, PARTITION, 1)),
            *((replies, answer) for answer in self.answers(session, number - 1, model.digest)),
            (t.PresenceTopic(CLIENT), m.ClientPresence(client=CLIENT, state="offline", session=session)),
            (t.ResultTopic(number), m.Result(
                **self.envelope(), round=number, outcome="committed", reason=None, version=number,
                digest=model.digest, participants=(CLIENT,), missing={"other": "lost"}, examples=10,
                metrics={"accuracy": 0.5}, bytes_up=1, bytes_down=2, seconds=0.5,
            )),
        ]  # fmt: skip
        for later in range(MODELS):
            model = self.model()
            on_its_own = t.WorkTopic(CLIENT) if later == 1 else t.SelectedTopic(number + later)
            found += [
                (on_its_own, self.selected(number + later, model)),
                (t.ModelTopic(), self.announcement(number + later - 1, model)),
                *self.pieces(model) * 2,
            ]
        return found
