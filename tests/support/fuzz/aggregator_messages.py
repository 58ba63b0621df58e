"""The messages that a correct aggregator sends to edges, in runs with and without masks."""

from __future__ import annotations

import random
from typing import Any, Final

import numpy as np

from fl_shared.masking.masked_update import mask_update
from fl_shared.masking.plan import CLOSING, plan_of, threshold_of
from fl_shared.masking.shares import SharesSection, body_of
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.publication import ModelPublication, model_publication
from tests.support.builders import fold_settings, partition, training_request
from tests.support.masked_edges import text_of
from tests.support.masked_rounds import keys_of, of_array

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
MEMBERS: Final = ("m1", "m2", "m3")
"""The other members of masked rounds, who sign and send anything."""
MODELS: Final = 2
"""How many models follow the first one, so that edges have something to fetch."""

Sent = tuple[t.Topic, m.Message]


class AggregatorMessages:
    """The messages of one run's aggregator."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.run = "run0"
        self.masked = False
        self.keys: str | None = None
        """What the edge has registered in a masked run."""
        self.newest: dict[int, m.Selected] = {}
        """The newest selection of each round."""
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
            **self.envelope(), client=client, session=session, task=TASK, partition=partition, examples=examples,
            masked=self.masked,
        )  # fmt: skip

    def selected(self, number: int, base: ModelPublication) -> m.Selected:
        selected = m.Selected(
            **self.envelope(), round=number, task=TASK, cohort=(CLIENT, "other"), seconds_left=60.0,
            training=training_request(epochs=1, batch_size=8, lr=0.1, momentum=0.0),
            fold=fold_settings(max_delta=10.0, scale_bits=30),
            encoding="f32" if self.masked else self.rng.choice(ENCODINGS),
            masked=self._masking(),
            base=m.ModelReference(version=number - 1, digest=base.digest),
            inline_limit=self.rng.choice((0, 100_000)),
        )  # fmt: skip
        self.newest[number] = selected
        return selected

    def _masking(self) -> m.Masking | None:
        if not self.masked or self.keys is None:
            return None
        keys = {CLIENT: self.keys, **{name: keys_of(name).announce(self.run, name, None) for name in MEMBERS}}
        threshold = threshold_of(len(keys), 1)
        members = tuple(m.Member(client=name, keys=keys[name]) for name in sorted(keys))
        return m.Masking(
            bits=self.rng.choice((48, 64)), threshold=threshold, least=threshold, colluders=1, members=members
        )

    def unmasking(self, selected: m.Selected, update: m.Update | None = None) -> tuple[m.Closing, m.Reveal]:
        """What members are asked for the sum of the round. ``update``: the edge's own; null if it was lost."""
        plan = plan_of(selected, PARTITION, MANIFEST.digest, VALUES)
        made = {
            name: mask_update(
                plan,
                name,
                keys_of(name),
                of_array(np.zeros(VALUES, np.int64)),
                np.zeros(8, np.int64),
                self.rng.randbytes,
            )
            for name in MEMBERS
        }
        bodies = {name: one.body for name, one in made.items()}
        shares = {name: SharesSection.of(plan, one.shares) for name, one in made.items()}
        if update is not None:
            delta, own_shares, tallies = update.sections
            shares[CLIENT] = SharesSection.of(plan, own_shares.data)
            digest = content_digest([(delta.name, delta.encoding, delta.manifest, delta.data)])
            salt, commitments = shares[CLIENT].salt, shares[CLIENT].commitments
            bodies[CLIENT] = body_of(plan.digest, salt, commitments, digest, tallies.data).hex()
        asked: dict[str, Any] = {
            "round": plan.round, "plan": plan.digest.hex(), "included": bodies, "seconds_left": 30.0,
        }  # fmt: skip
        signed = CLOSING + plan.closing(bodies)
        own = plan.index(CLIENT)
        return m.Closing(**self.envelope(), **asked), m.Reveal(
            **self.envelope(), **asked,
            signatures={name: text_of(keys_of(name).agree.sign(signed)) for name in MEMBERS},
            packages={name: text_of(one.package(own)) for name, one in shares.items()},
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

    def log_request(self, seconds: int) -> m.LogRequest:
        """The operator's, for the edge's log."""
        return m.LogRequest(client=CLIENT, reader="r1", level="debug", recent=200, seconds=seconds)

    def all_messages(self, number: int, session: str, model: ModelPublication) -> list[Sent]:
        """All messages from round ``number`` on, after ``model``."""
        replies = t.RepliesTopic(CLIENT)
        found: list[Sent] = [
            (t.AggregatorTopic(), self.birth()),
            (replies, self.admitted(CLIENT, session, PARTITION, None)),
            (replies, self.admitted(CLIENT, session, PARTITION, 1)),
            *((replies, answer) for answer in self.answers(session, number - 1, model.digest)),
            (t.PresenceTopic(CLIENT), m.ClientPresence(client=CLIENT, state="offline", session=session)),
            *((t.LogRequestTopic(CLIENT), self.log_request(seconds)) for seconds in (30, 0)),
            (t.ResultTopic(number), m.Result(
                **self.envelope(), round=number, outcome="committed", reason=None, version=number,
                digest=model.digest, participants=(CLIENT,), missing={"other": "lost"}, examples=10,
                metrics={"accuracy": 0.5}, bytes_up=1, bytes_down=2, seconds=0.5,
            )),
        ]  # fmt: skip
        for later in range(MODELS):
            model = self.model()
            on_its_own = t.WorkTopic(CLIENT) if later == 1 else t.SelectedTopic(number + later)
            selected = self.selected(number + later, model)
            if selected.masked is not None:
                found += [(t.UnmaskTopic(CLIENT), asked) for asked in self.unmasking(selected)]
            found += [
                (on_its_own, selected),
                (t.ModelTopic(), self.announcement(number + later - 1, model)),
                *self.pieces(model) * 2,
            ]
        return found
