"""Edges under the control of a test, on a real broker.

All of them share one connection, since the topic is the identity (protocol, 1.6).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgpack
import numpy as np

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import Manifest, Vector
from tests.support import builders
from tests.support.builders import session_of
from tests.support.client import Client, Endpoint


class SimulatedEdges(Client):
    """Simulated edges with one MQTT connection. ``manifest``: that of the model of all these edges."""

    def __init__(self, endpoint: Endpoint, manifest: Manifest, *, task: str = "digits") -> None:
        self.manifest = manifest
        self.task = task
        self.run = ""
        self.incarnation = 1
        self._seq = 0
        super().__init__(endpoint, "fl/aggregator", "fl/replies/#", "fl/round/#", reconnect=True)

    def envelope(self) -> dict[str, Any]:
        self._seq += 1
        return {"run": self.run, "incarnation": self.incarnation, "seq": self._seq}

    def registration(self, client: str, **changes: Any) -> m.Registration:
        """The first registration of a client; ``changes`` replace members."""
        self._seq += 1
        return builders.registration(client, **{"seq": self._seq} | changes)

    def register(self, client: str, **changes: Any) -> None:
        self.send(t.RegisterTopic(client), self.registration(client, **changes))

    def join(self, examples: dict[str, int]) -> None:
        """Registers all clients, which get their partitions and report ``examples`` as loaded."""
        for client in examples:
            self.register(client)
        for client, count in examples.items():
            admitted = self.expect(m.Admitted, client=client)
            while admitted.partition is None:
                admitted = self.expect(m.Admitted, client=client)
            self.run, self.incarnation = admitted.run, admitted.incarnation
            loaded = {
                "run": self.run,
                "incarnation": self.incarnation,
                "manifest": self.manifest.digest,
                "metrics": (builders.ACCURACY,),
            }
            self.register(client, examples=count, **loaded)
        for client, count in examples.items():
            self.expect(m.Admitted, client=client, examples=count)

    def update(
        self, client: str, round_number: int, base: str | None, vector: Vector, examples: int, **changes: Any
    ) -> dict[str, Any]:
        """A valid update, as the map that is sent; ``changes`` replace members."""
        data = vector.astype("<f4").tobytes()
        section = builders.section(data, self.manifest, arrays=self.manifest.arrays if base is None else None)
        whole = builders.update(
            section, **self.envelope(), client=client, session=session_of(client), round=round_number, base=base,
            examples=examples, metrics=m.UpdateMetrics(after={"accuracy": 0.5}),
        )  # fmt: skip
        return cast(dict[str, Any], msgpack.unpackb(codec.encode(whole))) | changes

    def send_update(self, client: str, update: dict[str, Any] | bytes) -> None:
        payload = update if isinstance(update, bytes) else cast(bytes, msgpack.packb(update))
        self.send(t.UpdatesTopic(client), payload)

    def contribute(self, client: str, selected: m.Selected) -> None:
        """Sends an update of 0.5 for each value, from ten examples, and waits until it is accepted."""
        base = None if selected.base is None else selected.base.digest
        vector = np.full(self.manifest.values, 0.5, np.float32)
        self.send_update(client, self.update(client, selected.round, base, vector, 10))
        self.expect(m.Accepted, client=client, round=selected.round)


def folded(base: Vector, contributions: Iterable[tuple[int, Vector]], scale_bits: int) -> Vector:
    """The next model (protocol, 5.10); ``contributions`` are (examples, local − base)."""
    total = np.zeros(len(base), np.int64)
    count = 0
    for examples, delta in contributions:
        total += np.rint(delta.astype(np.float64) * float(examples) * 2.0**scale_bits).astype(np.int64)
        count += examples
    mean = total.astype(np.float64) / (2.0**scale_bits * count)
    return (base.astype(np.float64) + mean).astype(np.float32)
