"""The rounds of a region are opened and ended by the run above (protocol, 5.21)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import pytest

from fl_aggregator.configuration import regions
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import due, step
from fl_aggregator.round.phases import Aggregating, Collecting, Failed, Selecting
from fl_aggregator.round.state import Run, new_run
from fl_shared.protocol.messages import ModelReference, TrainingRequest
from tests.support.builders import update_metadata

MANIFEST = "c" * 64
VERSIONS = [ModelReference(version=number, digest=f"{number:x}" * 64) for number in range(4)]
TRAINING = TrainingRequest(epochs=1, batch_size=None, lr=0.1, momentum=None, lr_factor=0.5, seed=7)
SETTINGS = Settings(
    region=regions.Region(name="north", edges=2),
    clients=6,
    per_round=2,
    edges_per_round=6,
    sums=regions.Sums(combine="mean"),
    wait=30,
)
EffectT = TypeVar("EffectT")


class Region:
    """A region of two edges, and the effects of its last event."""

    def __init__(self, edges: int = 2) -> None:
        self.state: Run = step(new_run(SETTINGS), on.Started(now=0.0))[0]
        self.effects: tuple[do.Effect, ...] = ()
        self.now = 0.0
        for client in map(str, range(edges)):
            same: dict[str, Any] = {
                "client": client, "session": f"s{client}", "device": client, "roles": ("train",), "encodings": ("f32",),
            }  # fmt: skip
            self.tell(on.Registered(now=0.0, **same))
            self.tell(on.Registered(now=0.0, **same, manifest=MANIFEST, examples=10))

    def tell(self, event: on.Event) -> None:
        self.now = max(self.now, event.now)
        self.state, self.effects = step(self.state, replace(event, now=self.now))

    def receive(self, version: int) -> None:
        self.tell(on.VersionReceived(now=self.now, model=VERSIONS[version], manifest=MANIFEST))

    def order(self, number: int, base: int | None, seconds: float = 100.0) -> None:
        reference = None if base is None else VERSIONS[base]
        order = on.RoundOrdered(
            now=self.now, round=number, base=reference, seconds=seconds, training=TRAINING
        )
        self.tell(order)

    def store(self, number: int, *clients: str) -> None:
        base = VERSIONS[number - 1].digest
        for client in clients:
            update = update_metadata(client=client, session=f"s{client}", round=number, base=base)
            self.tell(on.UpdateStored(now=self.now, update=update))

    def of(self, kind: type[EffectT]) -> list[EffectT]:
        return [effect for effect in self.effects if isinstance(effect, kind)]


@pytest.fixture
def region() -> Region:
    """With version 0, and no order."""
    made = Region()
    made.receive(0)
    return made


def test_nothing_is_opened_without_an_order(region: Region) -> None:
    assert region.state.begun
    assert isinstance(region.state.phase, Selecting)
    assert due(region.state) is None


def test_a_round_has_the_number_the_base_and_the_training_that_are_ordered(region: Region) -> None:
    region.order(5, 0)
    (announced,) = region.of(do.AnnounceRound)
    assert (announced.round, announced.base, announced.deadline) == (5, VERSIONS[0], 100.0)
    assert announced.order is not None
    assert announced.order.training == TRAINING
    assert isinstance(region.state.phase, Collecting)


def test_the_same_order_again_is_the_same_round_with_less_time(region: Region) -> None:
    region.order(1, 0)
    region.store(1, "0")
    region.order(1, 0, seconds=20.0)
    phase = region.state.phase
    assert isinstance(phase, Collecting)
    assert (phase.deadline, set(phase.updates)) == (20.0, {"0"})
    assert not region.of(do.AnnounceRound)
    region.order(1, 0, seconds=500.0)
    assert region.state.phase == phase


def test_a_sum_waits_for_the_version_that_it_is_in(region: Region) -> None:
    region.order(1, 0)
    region.store(1, "0", "1")
    assert len(region.of(do.Average)) == 1
    region.order(1, 0)
    assert isinstance(region.state.phase, Aggregating)
    assert not region.of(do.Average), "it is made once"
    region.tell(on.ModelCreated(now=1.0, round=1, digest=VERSIONS[1].digest, manifest=MANIFEST))
    assert region.state.model == VERSIONS[1]
    (result,) = region.of(do.PublishResult)
    assert (result.summary.outcome, result.summary.participants) == ("committed", ("0", "1"))
    assert isinstance(region.state.phase, Selecting)


@pytest.mark.parametrize("stored", [("0",), ("0", "1")], ids=["open", "summed"])
def test_a_round_that_the_run_above_has_ended_counts_for_nothing(
    region: Region, stored: tuple[str, ...]
) -> None:
    region.order(1, 0)
    region.store(1, *stored)
    region.tell(on.OrderEnded(now=1.0, round=1, reason="late"))
    (result,) = region.of(do.PublishResult)
    assert (result.summary.outcome, result.summary.reason) == ("abandoned", "late")
    assert region.state.model == VERSIONS[0]
    region.order(2, 0)
    assert isinstance(region.state.phase, Collecting)


def test_a_version_that_was_made_without_the_region_ends_its_round(region: Region) -> None:
    region.order(1, 0)
    region.receive(1)
    assert [result.summary.outcome for result in region.of(do.PublishResult)] == ["abandoned"]
    assert [model.model for model in region.of(do.PublishModel)] == [VERSIONS[1]]
    region.receive(0)
    assert region.state.model == VERSIONS[1], "an older one changes nothing"


def test_a_round_without_enough_updates_is_declined_and_no_run_fails_of_it(region: Region) -> None:
    for number in range(1, 9):
        region.order(number, 0, seconds=10.0)
        region.tell(on.TimePassed(now=region.now + 11.0))
        (declined,) = region.of(do.DeclineOrder)
        assert (declined.round, "0 of 1 updates arrived" in declined.detail) == (number, True)
    assert not isinstance(region.state.phase, Failed)


def test_an_order_waits_for_edges_until_its_deadline(region: Region) -> None:
    for client in ("0", "1"):
        region.tell(on.EdgeLost(now=1.0, client=client, session=f"s{client}"))
    region.order(1, 0, seconds=10.0)
    assert due(region.state) == 11.0
    region.tell(on.TimePassed(now=11.0))
    (declined,) = region.of(do.DeclineOrder)
    assert declined.detail == "0 of at least 1 edges of the region were ready; offline: 0, 1"
    assert region.state.order is None


def test_an_order_on_a_version_that_is_not_here_is_declined(region: Region) -> None:
    region.order(1, 1)
    assert [one.detail for one in region.of(do.DeclineOrder)] == [
        "the version that the round begins with has not come"
    ]


def test_first_weights_are_made_by_one_edge() -> None:
    region = Region()
    region.order(0, None)
    (announced,) = region.of(do.AnnounceRound)
    assert len(announced.cohort) == 1


def test_a_region_without_enough_edges_fails_before_it_begins() -> None:
    region = Region(edges=0)
    region.tell(on.TimePassed(now=31.0))
    assert isinstance(region.state.phase, Failed)
