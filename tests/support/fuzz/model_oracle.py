"""The state of honest edges, and an independent computation of the models from their updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.storage.spool import Spool
from fl_shared.protocol import messages as m
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.encodings import registry
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from fl_shared.transfer import upload
from tests.support.builders import registration
from tests.support.plain_decoders import section_values

HONEST: Final = ("honest-a", "honest-b", "honest-c")
VALUES: Final = 16_640
"""Values of an update that is just long enough for `codec` to decode its data separately."""
BUFFERS: Final = slice(VALUES - 40, VALUES)
MANIFEST: Final = Manifest(
    arrays=(ArraySpec(name="body", shape=(VALUES - 40,)), ArraySpec(name="head", shape=(5, 8), role="buffer"))
)
REGION: Final = "n4"
"""A regional aggregator among the noisy peers, which sends sums."""
REGION_EDGES: Final = 2


@dataclass
class Peer:
    """The state of one edge."""

    name: str
    device: str
    edges: int | None = None
    """It is a regional aggregator, which stands for so many edges."""
    session: str = ""
    round: int = -1
    update: upload.FinishedUpdate | None = None
    """The edge's update of that round."""

    def registrations(self, envelope: dict[str, Any]) -> list[m.Message]:
        """The registrations of an edge: a training edge sends a second one when its partition is loaded."""
        trains = self.name != "eve"
        facts: dict[str, Any] = {
            "session": self.session, "device": self.device,
            "roles": ("train", "predict") if trains else ("evaluate",), "encodings": registry.names(),
            "edges": self.edges,
        }  # fmt: skip
        first = registration(self.name, **facts)
        second = registration(self.name, **envelope, **facts, manifest=MANIFEST.digest, examples=10)
        return [first, second] if trains else [first]


class ModelOracle:
    """Checks the aggregator's models and the updates that they are made of.

    ``accepted``: updates of honest edges that went into a model; ``of_noise``: those of others, ``sums`` of which are
    of a regional aggregator. Raises
    ``AssertionError`` if something is wrong.
    """

    def __init__(
        self, settings: Settings, spool: Spool, newest: Callable[[], Vector], peers: Mapping[str, Peer]
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._newest = newest
        self._peers = peers
        self.accepted = self.of_noise = self.sums = 0
        self._expected: NDArray[np.float64] | None = None
        self._base: NDArray[np.float64] = np.zeros(0)

    def see(self, effects: tuple[do.Effect, ...]) -> None:
        """Checks effects that have just been performed."""
        for effect in effects:
            if isinstance(effect, do.PublishModel):
                self._check(effect)
            elif isinstance(effect, do.Average):
                self._average(effect)

    def _average(self, effect: do.Average) -> None:
        """Computes the expected model from the spool, in another way, before the spool is deleted."""
        scale, total, examples = 2.0**self._settings.scale_bits, np.zeros(VALUES, np.int64), 0
        # Of a buffer, what is above the cap of parameters is added up as multiples of a power of two (protocol, 5.10).
        cap, step = self._settings.max_delta, 2.0 ** math.floor(math.log2(self._settings.max_delta))
        multiples = [0] * 40
        encoding = self._settings.encoding if effect.base else "f32"
        for facts in effect.contributors:
            sections = self._spool.read(effect.round, facts.client).sections
            what = [(section.name, section.encoding, section.manifest, section.data) for section in sections]
            assert content_digest(what) == facts.digest, f"{facts.client}: not what was accepted"
            delta = sections[0]
            assert delta.encoding == ("sum" if facts.parts else encoding), facts
            if facts.parts:
                self.of_noise += 1
                self.sums += 1
                total += np.frombuffer(bytes(delta.data), "<i8")
                for section in sections[1:]:
                    large = np.frombuffer(bytes(section.data), "<i8")[BUFFERS].tolist()
                    multiples = [m + n for m, n in zip(multiples, large, strict=True)]
                examples += facts.examples
                continue
            vector = section_values(delta.encoding, bytes(delta.data), MANIFEST)
            assert np.isfinite(vector).all(), f"{facts.client}: not finite"
            assert 1 <= facts.examples <= self._settings.max_examples, facts
            if facts.client in HONEST:
                own = self._peers[facts.client].update
                assert own is not None
                assert (facts.digest, facts.examples) == (own.digest, own.examples)
                self.accepted += 1
            else:
                self.of_noise += 1
            if effect.base is None:
                self._expected = vector.astype(np.float64)
                return
            assert np.abs(vector[: BUFFERS.start]).max() <= cap, f"{facts.client}: too large"
            assert np.abs(vector).max() <= self._settings.max_buffer, f"{facts.client}: too large"
            values = vector.astype(np.float64)
            of_step = np.where(np.abs(values) > cap, np.rint(values / step), 0.0)
            total += np.rint((values - of_step * step) * (facts.examples * scale)).astype(np.int64)
            multiples = [
                m + facts.examples * int(n) for m, n in zip(multiples, of_step[BUFFERS], strict=True)
            ]
            examples += facts.examples
        assert set(HONEST) <= {facts.client for facts in effect.contributors}
        exact = total.astype(np.float64)
        exact[BUFFERS] += np.array([float(m) for m in multiples]) * step * scale
        self._expected = self._base + exact / (examples * scale)

    def _check(self, published: do.PublishModel) -> None:
        assert self._expected is not None, "nothing was averaged"
        expected, self._expected = self._expected.astype(np.float32), None
        where = f"round {published.round}: the model is not that of its updates"
        assert self._newest().tobytes() == expected.tobytes(), where
        self._base = expected.astype(np.float64)
