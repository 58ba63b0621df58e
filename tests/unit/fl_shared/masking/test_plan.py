"""A plan that does not keep what masked sums promise is none."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from fl_shared.masking.plan import plan_of, threshold_of
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support.builders import partition
from tests.support.masked_rounds import keys_of, member_of, plan_with

CLIENTS = ("a", "b", "c", "d", "e")
OTHER: dict[str, Any] = {
    "run": "s",
    "round": 2,
    "task": "other",
    "partition": {"holdout": 0.1},
    "base": "c" * 64,
    "manifest": "c" * 64,
    "values": 9,
    "training": {"lr": 0.050000000000000003 * 2},
    "correction": {},
    "fold": {"scale_bits": 21},
    "privacy": {},
    "bits": 32,
    "least": 5,
    "members": (member_of("a", "x"), *(member_of(name) for name in CLIENTS[1:])),
}


def test_two_sets_that_reach_the_threshold_have_an_honest_member_in_common() -> None:
    for members, colluders in itertools.product(range(2, 129), range(43)):
        if colluders + 2 <= members:
            threshold = threshold_of(members, colluders)
            assert 2 * threshold - members >= colluders + 1
            assert threshold - colluders >= 2
            assert threshold <= members


@pytest.mark.parametrize("name", OTHER)
def test_all_of_the_plan_is_in_its_digest(name: str) -> None:
    plan = plan_with(CLIENTS)
    assert replace(plan, **{name: OTHER[name]}).digest != plan.digest


def test_the_order_of_settings_is_not_in_the_digest() -> None:
    first, second = {"lr": 0.1, "epochs": 2}, {"epochs": 2, "lr": 0.1}
    assert plan_with(CLIENTS, training=first).digest == plan_with(CLIENTS, training=second).digest


def test_the_closing_depends_on_clients_and_bodies_and_not_on_their_order() -> None:
    plan = plan_with(CLIENTS)
    closing = plan.closing({"a": "1" * 64, "b": "2" * 64})
    assert plan.closing({"b": "2" * 64, "a": "1" * 64}) == closing
    assert plan.closing({"a": "2" * 64, "b": "1" * 64}) != closing
    assert plan.closing({"a": "1" * 64}) != closing
    assert plan_with(CLIENTS, round=2).closing({"a": "1" * 64, "b": "2" * 64}) != closing


def test_members_have_places() -> None:
    plan = plan_with(CLIENTS)
    assert [plan.index(client) for client in plan.clients] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        plan.index("f")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"threshold": 3}, "threshold: 3, expected 4 for 5 members and 1 colluders"),
        ({"threshold": 5}, "threshold: 5, expected 4"),
        ({"least": 3}, "least: 3, expected 4 to 5"),
        ({"least": 6}, "least: 6, expected 4 to 5"),
        ({"bits": 16}, "bits: 16, expected one of 32, 40, 48, 64"),
        ({"colluders": 4}, "members: 5 with 4 colluders, expected 6 to 128"),
        ({"colluders": -1}, "members: 5 with -1 colluders, expected 2 to 128"),
        (
            {"members": tuple(member_of(name) for name in "bacde")},
            "unique clients in ascending order",
        ),
        (
            {"members": tuple(member_of("a", name) for name in CLIENTS)},
            "unique clients in ascending order",
        ),
        ({"members": tuple(member_of(name, "x") for name in CLIENTS)}, "two have the same key"),
    ],
)
def test_a_plan_that_opens_too_much_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(plan_with(CLIENTS), **wrong)


def selected(**others: Any) -> m.Selected:
    members = [m.Member(client=name, keys=keys_of(name).announce("r", name, None)) for name in CLIENTS]
    masked = m.Masking(bits=48, threshold=4, least=5, colluders=1, members=tuple(members))
    fields: dict[str, Any] = {
        "run": "r",
        "incarnation": 1,
        "seq": 3,
        "round": 2,
        "task": "digits?x=1",
        "cohort": CLIENTS,
        "seconds_left": 9.5,
        "training": m.TrainingRequest(epochs=2, batch_size=None, lr=0.1, momentum=0, seed=7),
        "fold": m.FoldSettings(max_examples=10**6, max_delta=100, scale_bits=20),
        "encoding": "masked48",
        "base": m.ModelReference(version=1, digest="b" * 64),
        "inline_limit": 0,
        "correction": m.Correction(name="prox", settings={"mu": 0.1}),
        "masked": masked,
    }
    return m.Selected(**{**fields, **others})


def plan_digest(sent: m.Selected, **others: Any) -> bytes:
    return plan_of(sent, partition(**others), "c" * 64, 8).digest


def test_10_3_the_plan_is_computed_from_the_selection_on_either_side() -> None:
    sent = selected()
    plan = plan_of(sent, partition(3), "c" * 64, 650)
    assert plan.members == tuple(member_of(name) for name in CLIENTS)
    assert (plan.bits, plan.threshold, plan.least, plan.colluders) == (48, 4, 5, 1)
    assert plan.training["lr"] == 0.1
    assert plan.correction == {"name": "prox", "settings": {"mu": 0.1}}
    read = codec.decode(t.SelectedTopic(2), codec.encode(sent))
    assert isinstance(read, m.Selected)
    assert plan_of(read, partition(4), "c" * 64, 650).digest == plan.digest


@pytest.mark.parametrize("own", [{"incarnation": 2}, {"seq": 4}, {"seconds_left": 1.0}, {"inline_limit": 5}])
def test_10_3_a_selection_that_is_sent_again_has_the_same_plan(own: dict[str, Any]) -> None:
    assert plan_digest(selected(**own)) == plan_digest(selected())


@pytest.mark.parametrize("other", [{"noise": 2.5}, {"clip": 0.25}, {"mechanism": "central"}, None], ids=str)
def test_10_3_the_noise_of_a_private_round_is_in_the_plan(other: dict[str, Any] | None) -> None:
    """P5 in docs/privacy.md."""
    privacy = m.RoundPrivacy(mechanism="distributed", clip=0.5, noise=2.0)
    changed = None if other is None else privacy.model_copy(update=other)
    digests = [plan_digest(selected(privacy=one)) for one in (privacy, changed)]
    assert digests[0] != digests[1]
    assert (digests[1] == plan_digest(selected())) == (other is None)


@pytest.mark.parametrize(
    "other", [{"scheme": "own"}, {"count": 21}, {"seed": 1}, {"holdout": 0.999}, {"examples": 100}], ids=str
)
def test_10_3_all_of_the_partition_but_its_index_is_in_the_plan(other: dict[str, Any]) -> None:
    """P5 in docs/privacy.md: with other holdouts than one edge has, the others would weigh nothing beside it."""
    assert plan_digest(selected(), **other) != plan_digest(selected())


@pytest.mark.parametrize("missing", ["masked", "base"])
def test_10_2_a_round_without_masks_has_no_plan(missing: str) -> None:
    with pytest.raises(ValueError, match="round 2 is not masked"):
        plan_digest(selected(**{missing: None}))


def test_keys_of_a_member_that_are_none_are_refused() -> None:
    masked = selected().masked
    assert masked is not None
    bad = masked.members[0].model_copy(update={"keys": "A" * 86})
    wrong = masked.model_copy(update={"members": (bad, *masked.members[1:])})
    with pytest.raises(ValueError, match="no canonical X25519 key"):
        plan_digest(selected(masked=wrong))
