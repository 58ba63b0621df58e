"""A tree of aggregators makes the bits of a flat run: any division of a round's updates into regions, any strategy.

Only strategies that add up can have regions; what each of the others answers is tested here, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_aggregator.aggregation.combining import Combiner, State, first_state
from fl_aggregator.aggregation.regional_sum import RegionalSum, SumCaps, strategy_of
from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.strategies.presets import PRESETS
from fl_aggregator.aggregation.validation import ExpectedUpdate
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.storage.update_content import SectionContent, UpdateContent
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from fl_shared.tensors.sections import DELTA, LARGE, model_digest
from tests.support.builders import update_metadata

EDGES = 9
MANIFEST = Manifest(
    arrays=(
        ArraySpec(name="a", shape=(40, 7)),
        ArraySpec(name="b", shape=(30,), role="buffer"),
        ArraySpec(name="c", shape=(11,)),
    )
)
BUFFERS = slice(280, 310)
SUMS: list[dict[str, Any]] = [
    {},
    {"strategy": "fedavgm"},
    {"strategy": "fedadam"},
    {"strategy": "fedyogi"},
    {"strategy": "fedadagrad"},
    {"strategy": "fedexp"},
    {"strategy": "fedprox"},
    {"strategy": "fednova", "momentum": 0.9, "epochs": 1},
    {"strategy": "fednova", "momentum": 0.0, "epochs": 1},
    {"strategy": "q-fedavg", "lr": 0.1},
    {"combine": "mean:equal=true", "transform": ("clip:norm=3",)},
]


def made(more: dict[str, Any]) -> Settings:
    return registry.resolved(Settings(clients=EDGES, per_round=EDGES, quorum=EDGES, **more))


@dataclass(frozen=True)
class Round:
    """The updates of all edges in one round."""

    deltas: Sequence[Vector]
    metadata: Sequence[UpdateMetadata]

    @classmethod
    def drawn(cls, number: int) -> Round:
        chance = np.random.default_rng(number)
        deltas = chance.normal(0, 0.5, (EDGES, MANIFEST.values)).astype(np.float32)
        deltas[:, BUFFERS] *= np.float32(10.0) ** chance.integers(-3, 9, (EDGES, 30)).astype(np.float32)
        metadata = [
            update_metadata(
                client=f"c{index}",
                examples=int(chance.integers(1, 5000)),
                steps=int(chance.integers(1, 200)),
                before={"loss": float(chance.uniform(0.01, 5))},
            )
            for index in range(EDGES)
        ]
        return cls(list(deltas), metadata)

    def add(self, combiner: Combiner, index: int) -> None:
        combiner.add(self.metadata[index], self.deltas[index], float(np.abs(self.deltas[index]).max()))


def sent(region: str, combiner: Combiner, expected: ExpectedUpdate) -> tuple[UpdateMetadata, RegionalSum]:
    """What the region's sum is after its way over the wire, and after the check above."""
    total, parts = combiner.summed()
    sections = total.sections(MANIFEST)
    metadata = update_metadata(client=region, examples=sum(part.examples for part in parts), parts=parts)
    content = UpdateContent(
        model_digest(sections),
        tuple(
            SectionContent(one.name, one.encoding, one.manifest.digest, None, memoryview(bytes(one.data)))
            for one in sections
        ),
    )
    checked = expected.check(content, metadata.edges).total
    assert checked is not None
    return metadata, checked


def unread(client: str) -> Vector:
    raise AssertionError(f"the update of {client} is read again")


@settings(deadline=None, max_examples=40)
@given(
    more=st.sampled_from(SUMS),
    regions=st.lists(st.integers(0, 3), min_size=EDGES, max_size=EDGES),
    order=st.permutations(range(EDGES)),
    seed=st.integers(0, 2**20),
)
def test_any_division_into_regions_makes_the_bits_of_the_flat_run(
    more: dict[str, Any], regions: list[int], order: list[int], seed: int
) -> None:
    """Region 0 stands for edges without a regional aggregator: both kinds go together."""
    above = made(more)
    strategy = registry.load(above)
    caps = above.max_delta, above.max_buffer, SumCaps.of(strategy, above)
    expected = ExpectedUpdate(strategy.sections, above.encoding, MANIFEST, *caps)
    below = Settings(clients=EDGES, per_round=1, edges_per_round=EDGES).model_copy(
        update={"sums": above.sums}
    )
    base: Vector = np.linspace(-1, 1, MANIFEST.values, dtype=np.float32)
    flat = tree = base
    flat_state: State = first_state(strategy, MANIFEST.values)
    tree_state: State = flat_state
    for number in range(2):
        drawn = Round.drawn(seed + number)
        whole, top = (Combiner(strategy, MANIFEST, above) for _ in range(2))
        parts = {region: Combiner(strategy_of(below), MANIFEST, below) for region in {*regions} - {0}}
        for index in range(EDGES):
            drawn.add(whole, index)
        for index in order:
            drawn.add(parts.get(regions[index], top), index)
        for region, combiner in parts.items():
            top.add_sum(*sent(f"region{region}", combiner, expected))
        flat, flat_state = whole.next_model(number + 1, flat, flat_state, unread)
        tree, tree_state = top.next_model(number + 1, tree, tree_state, unread)
        assert tree.tobytes() == flat.tobytes()
        assert {name: one.tobytes() for name, one in tree_state.items()} == {
            name: one.tobytes() for name, one in flat_state.items()
        }


def test_every_strategy_either_adds_up_or_says_what_needs_each_update() -> None:
    with_bad = {"krum", "multi-krum", "bulyan"}
    added = {one.get("strategy", "fedavg") for one in SUMS}
    for name in PRESETS:
        text = f"{name}:bad=1" if name in with_bad else name
        needs = made({"momentum": 0.5, "lr": 0.1, "epochs": 1, "strategy": text}).sums.needs_each
        assert (needs == "") == (name in added), name
        if needs:
            assert needs.startswith(f"--strategy {name}")


@pytest.mark.parametrize(
    ("more", "needs"),
    [
        ({"combine": "median"}, "--combine median"),
        ({"correct": ("scaffold",)}, "--correct scaffold"),
        ({"similarity": 2}, "--similarity 2"),
        ({"keep_local": ("batchnorm",)}, "--keep-local"),
        ({"personalize": 1}, "--personalize"),
    ],
)
def test_the_option_that_needs_each_update_is_named(more: dict[str, Any], needs: str) -> None:
    assert made(more).sums.needs_each == needs


def test_large_values_of_buffers_are_a_section_of_their_own() -> None:
    above = made({})
    combiner = Combiner(strategy_of(above), MANIFEST, above)
    small = np.zeros(MANIFEST.values, np.float32)
    combiner.add(update_metadata(client="a"), small, 0.0)
    assert [one.name for one in combiner.summed()[0].sections(MANIFEST)] == [DELTA]
    large = small.copy()
    large[BUFFERS] = 1e9
    combiner.add(update_metadata(client="b"), large, 1e9)
    assert [one.name for one in combiner.summed()[0].sections(MANIFEST)] == [DELTA, LARGE]
