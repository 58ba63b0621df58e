"""Regional aggregators register for many edges, and their sums are accepted or rejected (protocol, 5.21)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fl_aggregator.aggregation.strategies.registry import resolved
from fl_aggregator.configuration.regions import regional_sums
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.views.edge_states import open_round_views
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import step
from fl_aggregator.round.phases import Collecting, Order, collected_round
from fl_aggregator.round.state import Run, new_run
from fl_aggregator.round.summary import missing_reasons
from fl_aggregator.round.updates import decide
from fl_shared.protocol.messages import ModelReference
from tests.support.builders import training_request, update_metadata

MANIFEST, BASE = "c" * 64, ModelReference(version=0, digest="a" * 64)


def settings(**more: Any) -> Settings:
    return resolved(Settings(**{"clients": 2, "per_round": 2, "edges_per_round": 30} | more))


def registered(client: str, edges: int | None, **more: Any) -> on.Registered:
    return on.Registered(
        now=0.0, client=client, session=f"s-{client}", device=client, roles=("train",), encodings=("f32",),
        edges=edges, **more,
    )  # fmt: skip


def in_round_1(**more: Any) -> Run:
    """A region for 20 edges, and an edge, which are both selected."""
    state = step(new_run(settings(**more), BASE, MANIFEST), on.Started(now=0.0))[0]
    for client, edges in (("north", 20), ("1", None)):
        state = step(state, registered(client, edges))[0]
        state = step(state, registered(client, edges, manifest=MANIFEST, examples=100))[0]
    return state


def a_sum(count: int, **more: Any) -> on.UpdateMetadata:
    parts = tuple(on.Part(f"{index:02}", 10, 3) for index in range(count))
    return update_metadata(**{"client": "north", "examples": 10 * count, "parts": parts} | more)


def answer(state: Run, update: on.UpdateMetadata) -> tuple[str, str]:
    decision = decide(state, update)
    assert isinstance(decision, do.Reject)
    return decision.reason, decision.detail


def test_5_21_a_region_is_told_how_to_add_up() -> None:
    state = step(new_run(settings()), on.Started(now=0.0))[0]
    _, effects = step(state, registered("north", 20))
    (reply,) = (one for one in effects if isinstance(one, do.SendReply))
    assert isinstance(reply.body, do.Admit)
    assert reply.body.sums
    sums = regional_sums(state.settings)
    assert (sums.combine, sums.slots, sums.fold.scale_bits) == (
        "mean:equal=false",
        30,
        state.settings.scale_bits,
    )


@pytest.mark.parametrize(
    ("more", "edges", "said"),
    [
        ({}, 31, "31 edges, but a round has room for 30"),
        (
            {"combine": "median", "clients": 6, "per_round": 6},
            20,
            "gives only sums of updates, but --combine median needs each update",
        ),
        ({"strategy": "scaffold"}, 20, "--strategy scaffold needs each update"),
        ({"similarity": 1, "clients": 3, "per_round": 3}, 20, "--similarity 1 needs each update"),
    ],
)
def test_5_21_a_region_is_refused_where_its_sum_is_of_no_use(
    more: dict[str, Any], edges: int, said: str
) -> None:
    state = step(new_run(settings(**more)), on.Started(now=0.0))[0]
    _, effects = step(state, registered("north", edges))
    (reply,) = (one for one in effects if isinstance(one, do.SendReply))
    assert isinstance(reply.body, do.Refuse)
    assert reply.body.reason == "lacks-ability"
    assert said in reply.body.detail


def test_5_21_whoever_claims_to_be_a_region_is_told_no_sums_that_there_are_none_of() -> None:
    """Also a client that does not train: of an encoding with feedback there are no sums to describe."""
    state = step(new_run(settings(encoding="topk:0.5")), on.Started(now=0.0))[0]
    _, effects = step(state, replace(registered("north", 2), roles=("predict",)))
    (reply,) = (one for one in effects if isinstance(one, do.SendReply))
    assert isinstance(reply.body, do.Refuse)
    assert reply.body.reason == "lacks-ability"


def test_5_21_a_sum_counts_for_its_edges() -> None:
    state = in_round_1()
    assert decide(state, a_sum(20)) is None
    assert answer(state, a_sum(21))[0] == "wrong-sum"
    assert answer(state, a_sum(2, client="1"))[0] == "wrong-sum"
    assert (
        answer(state, a_sum(2, examples=20, parts=(on.Part("a", 0, 1), on.Part("b", 20, 1))))[0]
        == "bad-examples"
    )


@pytest.mark.parametrize(("norm", "told"), [(None, "null"), (-1.0, "-1.0")])
def test_5_21_a_sum_without_a_length_of_each_update_is_wrong_if_lengths_count(
    norm: float | None, told: str
) -> None:
    parts = (on.Part("a", 10, 1, norm=0.0), on.Part("b", 10, 1, norm=norm))
    update = a_sum(2, examples=20, parts=parts)
    expected = ("wrong-sum", f"sum_of.norms: {told} of edge b, expected 0 or more")
    assert answer(in_round_1(strategy="fedexp"), update) == expected
    assert answer(in_round_1(strategy="q-fedavg:lr=0.1"), update) == expected
    assert decide(in_round_1(), update) is None, "of no use: nobody looks at it"


def test_5_21_a_sum_has_no_edge_with_more_steps_than_can_be() -> None:
    parts = (on.Part("a", 10, 20), on.Part("b", 10, 21))
    update = a_sum(2, examples=20, parts=parts)
    state = in_round_1(strategy="fednova", momentum=0.9, epochs=2)
    expected = ("bad-examples", "steps: 21 of edge b, expected at most 20 (--epochs × examples)")
    assert answer(state, update) == expected
    assert decide(state, replace(update, parts=(parts[0], replace(parts[1], steps=20)))) is None


def test_5_21_in_a_region_the_run_above_says_how_many_epochs_there_are() -> None:
    state = in_round_1(strategy="fednova", momentum=0.9, epochs=9)
    phase = state.phase
    assert isinstance(phase, Collecting)
    order = Order(round=1, base=BASE, training=training_request(epochs=2), correction=None, deadline=9.0)
    in_region = replace(state, phase=replace(phase, order=order))
    update = update_metadata(client="1", examples=10, steps=21)
    assert decide(state, update) is None
    assert answer(in_region, update)[1] == "steps: 21, expected at most 20 (--epochs × examples)"


def test_5_21_a_sum_that_does_not_fit_is_surplus() -> None:
    state = in_round_1(edges_per_round=20)
    state = step(state, on.UpdateStored(now=1.0, update=update_metadata(client="1")))[0]
    reason, detail = answer(state, a_sum(20))
    assert reason == "surplus"
    assert "20 edges, but 1 of 20 are in the round" in detail


def test_5_21_a_missing_region_is_named_with_its_edges() -> None:
    state = in_round_1()
    collected = collected_round(state.phase)
    assert collected is not None
    lost = replace(state, roster=state.roster.mark_lost("north", "s-north", 1.0))
    missing = missing_reasons(lost, collected, 4.0)
    assert missing["north"] == "region, for 20 edges: offline: for 3.0 s"
    assert missing["1"].startswith("deadline")


def test_5_21_watchers_see_for_how_many_edges_a_region_stands() -> None:
    state = in_round_1()
    views = open_round_views(state, (), {})
    assert (views["north"].state, views["north"].reason) == ("training", "region, for 20 edges")
    assert views["1"].reason is None
    lost = replace(state, roster=state.roster.mark_lost("north", "s-north", 1.0))
    assert open_round_views(lost, (), {})["north"].reason == "region, for 20 edges: its connection is lost"
