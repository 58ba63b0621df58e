"""The updates of peers, and the sums of a regional aggregator, good or with a fault."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from fl_aggregator.round.phases import Collecting
from fl_shared.protocol import messages as m
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.upload import FinishedUpdate
from tests.support.builders import finished_update
from tests.support.fuzz.model_oracle import MANIFEST, REGION, REGION_EDGES, VALUES, Peer

Corruption = Callable[[bytearray], None]
"""Changes the bytes of an update before its digest is computed."""
EXAMPLES: Final = 1000


@dataclass(frozen=True)
class PeerUpdates:
    """Makes updates of random values. ``scale_bits``: the binary places of sums."""

    values: np.random.Generator
    scale_bits: int

    def peer(self, peer: Peer, phase: Collecting, corrupt: Corruption | None = None) -> FinishedUpdate:
        """What a peer sends in the round."""
        return self.edge(phase, corrupt) if peer.edges is None else self.region(phase, corrupt)

    def edge(self, phase: Collecting, corrupt: Corruption | None = None) -> FinishedUpdate:
        """An edge's update for the round, in the encoding of the round."""
        vector = self.values.standard_normal(VALUES, dtype=np.float32)
        data = bytearray(SectionFormat.of(phase.encoding, MANIFEST).encode(vector, seed=phase.round))
        if corrupt is not None:
            corrupt(data)
        return finished_update(
            ModelSection("delta", MANIFEST, bytes(data), phase.encoding),
            base=None if phase.base is None else phase.base.digest,
            examples=int(self.values.integers(1, EXAMPLES)),
            steps=3,
            seconds=0.5,
            metrics=m.UpdateMetrics(before={"loss": 1.5}, train={"loss": 0.25}),
        )

    def region(self, phase: Collecting, corrupt: Corruption | None = None) -> FinishedUpdate:
        """A region's sum for the round; there are no sums of first weights."""
        if phase.base is None:
            return self.edge(phase, corrupt)
        examples = tuple(int(number) for number in self.values.integers(1, EXAMPLES, REGION_EDGES))
        values = self.values.standard_normal(VALUES) * sum(examples) * 2.0**self.scale_bits
        data = bytearray(np.rint(values).astype("<i8").tobytes())
        if corrupt is not None:
            corrupt(data)
        unknown = (None,) * REGION_EDGES
        return finished_update(
            ModelSection("delta", MANIFEST, bytes(data), "sum"),
            base=phase.base.digest,
            examples=sum(examples),
            sum_of=m.SumOf(
                clients=tuple(f"{REGION}-{index}" for index in range(REGION_EDGES)),
                examples=examples, steps=(3,) * REGION_EDGES, losses=unknown, norms=unknown,
            ),
        )  # fmt: skip


def corrupt(rng: random.Random, data: bytearray) -> None:
    """Changes an encoded vector, mostly into one that must not be folded, though the update describes it correctly."""
    match rng.randrange(6):
        case 0:
            data[40:44] = np.float32(rng.choice((np.nan, np.inf, -np.inf))).tobytes()
        case 1:
            data[-4:] = np.float32(rng.choice((100.5, -1e30, 3e38))).tobytes()
        case 2:
            del data[-4:]
        case 3:
            data += b"\0\0\0\0"
        case 4:
            for _ in range(rng.choice((1, 1, 16))):
                place = rng.randrange(min(len(data), rng.choice((400, len(data)))))
                piece = rng.randbytes(rng.randrange(1, 9))[: len(data) - place]
                data[place : place + len(piece)] = piece
        case _:
            first, second = sorted(rng.randrange(len(data)) for _ in range(2))
            data[first:second] = rng.choice(
                (data[first:second][::-1], rng.choice((b"\0", b"\xff")) * (second - first))
            )
