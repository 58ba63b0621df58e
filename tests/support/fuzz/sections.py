"""Encoded sections with faults, in updates whose digest is right: nothing but their check stands before the fold."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import numpy as np

from fl_aggregator.aggregation.regional_sum import SumCaps
from fl_aggregator.aggregation.strategies.registry import load
from fl_aggregator.aggregation.validation import ExpectedUpdate, InvalidUpdate
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.storage.update_content import SectionContent, UpdateContent
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.encodings.registry import OF_INTEGERS
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.sections import DELTA
from tests.support.fuzz.peer_updates import corrupt
from tests.support.plain_decoders import section_values

NAMES: Final = (
    "f32",
    "bf16",
    "q8",
    "shuffle-deflate",
    "topk:0.01",
    "topk:0.5",
    *[one for one in OF_INTEGERS if one != "raw"],
)
PARAMETERS: Final = 600
MANIFEST: Final = Manifest(
    arrays=(ArraySpec(name="body", shape=(PARAMETERS,)), ArraySpec(name="head", shape=(5, 8), role="buffer"))
)
SETTINGS: Final = Settings(clients=4, per_round=4, rounds=1)


@dataclass(frozen=True)
class Section:
    """An encoded section."""

    encoding: str
    data: bytes


class SectionHarness:
    """What stands between a section and the fold. ``refused`` and ``taken`` count sections by encoding."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.refused, self.taken = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
        self._values = np.random.default_rng(seed)
        strategy = load(SETTINGS)
        caps = SETTINGS.max_delta, SETTINGS.max_buffer, SumCaps.of(strategy, SETTINGS)
        self._expected = {name: ExpectedUpdate((DELTA,), name, MANIFEST, *caps) for name in NAMES}

    def noise(self) -> Section:
        """The next section, with one fault or a few."""
        encoding = self.rng.choice(NAMES)
        vector = self._values.standard_normal(MANIFEST.values, dtype=np.float32)
        vector[self.rng.randrange(len(vector)) :] = self.rng.choice((0.0, 1.0, -0.5))  # as some layers are
        data = bytearray(SectionFormat.of(encoding, MANIFEST).encode(vector, seed=self.rng.randrange(9)))
        for _ in range(self.rng.choice((1, 1, 3))):
            corrupt(self.rng, data)
        return Section(encoding, bytes(data))

    def take(self, section: Section) -> None:
        """Checks a section as an update of one edge, and decodes what passes. Raises ``AssertionError``."""
        name, data = section.encoding, section.data
        digest = content_digest([(DELTA, name, MANIFEST.digest, data)])
        content = SectionContent(DELTA, name, MANIFEST.digest, None, memoryview(data))
        try:
            checked = self._expected[name].check(UpdateContent(digest, (content,)))
        except InvalidUpdate:
            self.refused[name] += 1
            return
        self.taken[name] += 1
        if checked.total is not None:
            return
        values = checked.delta.values[:]
        assert np.isfinite(values).all()
        # A hostile scale of `q8` may bound values that are all 0, so that the magnitude itself has no cap.
        assert np.abs(values).max() <= checked.delta.magnitude < np.inf
        assert np.abs(values[:PARAMETERS]).max() <= SETTINGS.max_delta
        assert np.abs(values).max() <= SETTINGS.max_buffer
        assert values.tobytes() == section_values(name, data, MANIFEST).tobytes(), "decoded in another way"
