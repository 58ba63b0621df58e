"""The same noise for Hypothesis, which finds the shortest sequence that does harm."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import strategies as st

from tests.support.fuzz.mutations import EXTREMES, Mutator, Seed

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats()
    | st.text(max_size=70)
    | st.binary(max_size=40)
    | st.sampled_from(EXTREMES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@dataclass(frozen=True)
class Mutation:
    """One change of a seed: the ``which``-th seed, at the ``where``-th of its values or bytes."""

    which: int
    how: Literal["as it is", "replace", "near", "drop", "flip", "cut", "grow", "other topic"]
    where: int
    value: Any
    retain: bool

    def __call__(self, seeds: Sequence[Seed]) -> tuple[str, bytes]:
        """Topic and payload."""
        seed = seeds[self.which % len(seeds)]
        mutator = Mutator(random.Random(self.where))
        payload, topic = seed.payload, seed.topic
        match self.how:
            case "replace" | "near" | "drop" if seed.paths:
                path = seed.paths[self.where % len(seed.paths)]
                payload = mutator.spell(mutator.changed(seed.tree, path, self.how, self.value), seed.format)
            case "flip" if payload:
                at = self.where % len(payload)
                payload = payload[:at] + bytes([payload[at] ^ 1 << self.where % 8]) + payload[at + 1 :]
            case "cut":
                payload = payload[: self.where % (len(payload) + 1)]
            case "grow":
                payload += payload[: self.where % 50]
            case "other topic":
                topic = seeds[self.where % len(seeds)].topic
            case _:
                pass
        return topic, payload


MUTATIONS: st.SearchStrategy[Mutation] = st.builds(
    Mutation,
    which=st.integers(0, 200),
    how=st.sampled_from(
        ("as it is", "replace", "replace", "near", "drop", "flip", "cut", "grow", "other topic")
    ),
    where=st.integers(0, 2000),
    value=VALUES,
    retain=st.sampled_from((False,) * 9 + (True,)),
)
NOISE: st.SearchStrategy[list[Mutation]] = st.lists(MUTATIONS, max_size=25)
