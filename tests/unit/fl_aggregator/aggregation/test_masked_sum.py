"""A masked sum becomes the plain sum of the same updates, bit for bit, or the round fails."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from fl_aggregator.aggregation.exact_sum import ExactSum
from fl_aggregator.aggregation.masked_sum import Limits, MaskedSum, UnmaskedSum
from fl_aggregator.aggregation.regional_sum import RegionalSum, SumCaps, SumTooLarge
from fl_aggregator.aggregation.strategies.registry import load, resolved
from fl_aggregator.configuration.settings import Settings
from fl_shared.masking.tallies import Tallies
from fl_shared.masking.unmasking import UnmaskFailed
from fl_shared.tensors.encodings.interface import BLOCK
from fl_shared.tensors.encodings.masked import WIDTHS
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from tests.support.masked_rounds import MaskedRound, plan_with, quantized

VALUES = BLOCK + 5
MANIFEST = Manifest(
    arrays=(ArraySpec(name="a", shape=(VALUES - 2,)), ArraySpec(name="b", shape=(2,), role="buffer"))
)
CLIENTS = tuple(f"e{number:02}" for number in range(10))
EXAMPLES = 40


def settings_of(bits: int) -> Settings:
    return Settings(
        clients=10, per_round=10, max_examples=EXAMPLES, max_delta=1.0, fold_bits=str(bits), masked=True
    )


@dataclass
class Masked:
    """A round of masked updates of real values, with its sum."""

    settings: Settings
    round: MaskedRound
    plain: ExactSum
    sum: MaskedSum

    @classmethod
    def of(cls, bits: int) -> Masked:
        settings = settings_of(bits)
        plan = plan_with(CLIENTS, bits=bits, values=VALUES, fold=settings.fold_settings.model_dump())
        plain = ExactSum(VALUES, settings.scale_bits, settings.slots)
        return cls(settings, MaskedRound(plan), plain, MaskedSum(np.zeros(VALUES, np.int64), bits))

    def add(self, client: str, delta: Vector, examples: int) -> None:
        integers = np.empty(VALUES, np.int64)
        quantized(delta, examples * 2.0**self.settings.scale_bits, integers)
        self.plain.add(delta, examples)
        self.send(client, integers, Tallies(examples, 2, 0.5, 0.5, 0.25, 0.25, 0.5))

    def send(self, client: str, integers: np.ndarray, tallies: Tallies) -> None:
        made = self.round.upload(client, integers, tallies.integers())
        self.sum.add(made.delta, made.tallies)

    def unmask(self, holders: tuple[str, ...] = CLIENTS) -> UnmaskedSum:
        caps = SumCaps.of(load(self.settings), self.settings)
        assert caps is not None
        limits = Limits(caps, MANIFEST, self.settings.max_examples)
        return self.sum.unmask(self.round.plan, self.round.sections, self.round.opened(holders), limits)


def deltas(count: int) -> np.ndarray:
    values = np.random.default_rng(3).normal(0, 0.1, (count, VALUES)).astype(np.float32)
    return np.clip(values, -1, 1)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("lost", [0, 4])
def test_it_is_the_exact_sum_of_the_same_updates_bit_for_bit(bits: int, lost: int) -> None:
    masked = Masked.of(bits)
    for number, client in enumerate(CLIENTS[lost:]):
        masked.add(client, deltas(10)[number], number + 1)
    found = masked.unmask(CLIENTS[4:] if lost else CLIENTS[:6])
    assert found.total.integers.tolist() == masked.plain.integers().tolist()
    assert not found.total.multiples
    count = 10 - lost
    examples = count * (count + 1) // 2
    assert found.tallies == Tallies(examples, 2 * count, 0.5, 0.5, 0.25, 0.25, 0.5)
    assert not found.liars


def test_all_edges_may_be_at_their_caps() -> None:
    masked = Masked.of(32)
    for number, client in enumerate(CLIENTS):
        masked.add(client, np.full(VALUES, -1.0 if number % 2 else 1.0, np.float32), EXAMPLES)
    assert not masked.unmask().total.integers.any()
    masked = Masked.of(32)
    for client in CLIENTS:
        masked.send(
            client, np.full(VALUES, EXAMPLES << masked.settings.scale_bits), Tallies(1, 0, 0, 0, 0, 0, 0)
        )
    assert set(masked.unmask().total.integers.tolist()) == {10 * EXAMPLES << masked.settings.scale_bits}


def test_a_sum_that_no_edges_can_have_is_implausible() -> None:
    masked = Masked.of(64)
    for client in CLIENTS[:9]:
        masked.add(client, deltas(1)[0], 1)
    random = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, VALUES)
    masked.send(CLIENTS[9], random, Tallies(1, 0, 0, 0, 0, 0, 0))
    with pytest.raises(
        UnmaskFailed, match=r"the sum is implausible: delta: 'a': .* but 10 edges add up to"
    ) as failed:
        masked.unmask()
    assert failed.value.client is None


def test_tallies_that_no_edges_can_have_are_implausible() -> None:
    masked = Masked.of(64)
    for client in CLIENTS:
        masked.send(client, np.zeros(VALUES, np.int64), Tallies(EXAMPLES + 1, 0, 0, 0, 0, 0, 0))
    with pytest.raises(UnmaskFailed, match="implausible: examples: the sum is 410, expected 10 to 400"):
        masked.unmask()


def test_the_sum_can_be_unmasked_with_other_holders_after_a_failure() -> None:
    masked = Masked.of(48)
    for client in CLIENTS:
        masked.add(client, deltas(1)[0], 3)
    with pytest.raises(UnmaskFailed, match="5 members have opened"):
        masked.unmask(CLIENTS[:5])
    assert masked.unmask(CLIENTS[4:]).total.integers.tolist() == masked.plain.integers().tolist()


def test_who_lies_is_named_and_left_out() -> None:
    masked = Masked.of(64)
    for client in CLIENTS:
        masked.add(client, deltas(1)[0], 3)
    opened = masked.round.opened(CLIENTS)
    shares = bytes(byte ^ 0x55 for byte in opened["e03"].shares)
    opened["e03"] = replace(opened["e03"], shares=shares)
    caps = SumCaps.of(load(masked.settings), masked.settings)
    assert caps is not None
    found = masked.sum.unmask(
        masked.round.plan, masked.round.sections, opened, Limits(caps, MANIFEST, EXAMPLES)
    )
    assert found.liars == {"e03"}
    assert found.total.integers.tolist() == masked.plain.integers().tolist()


@pytest.mark.parametrize("lost", [0, 4])
def test_a_private_sum_has_room_for_the_noise_of_its_edges_and_for_no_more(lost: int) -> None:
    """D15 in docs/differential-privacy.md."""
    settings = resolved(
        Settings(clients=10, per_round=10, masked=True, dp="distributed", dp_clip="0.5", dp_noise=2.0)
    )
    plan = plan_with(CLIENTS, bits=settings.fold_width, values=VALUES)
    unit, edges = 2.0**settings.scale_bits, 10 - lost
    part = 2.0 * 0.5 * unit / math.sqrt(plan.least - plan.colluders)
    most = edges * int(0.5 * unit) + math.ceil(12 * part * math.sqrt(edges))
    assert most < 2 ** (settings.fold_width - 2), "it does not wrap"
    caps, manifest = SumCaps.of_private(settings, plan), Manifest(arrays=(ArraySpec(name="w", shape=(3,)),))
    caps.check(RegionalSum(np.array([most, -most, 0]), {}), manifest, edges)
    for value in (most + 2, -most - 2):
        with pytest.raises(SumTooLarge, match="'w'"):
            caps.check(RegionalSum(np.array([0, 0, value]), {}), manifest, edges)
