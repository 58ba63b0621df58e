"""The settings of masked runs: how many edges sign and are summed, and what does not go with masks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.configuration import masking
from fl_aggregator.configuration.settings import Settings, parse_settings
from fl_shared.errors import UserError


def masked(**changes: Any) -> Settings:
    return parse_settings(**{"masked": True, "clients": 200} | changes)


@pytest.mark.parametrize(
    ("given", "colluders", "threshold", "least"),
    [
        ({"per_round": 5}, 1, 4, 5),
        ({"per_round": 5, "masked_min": 3}, 1, 4, 4),
        ({"per_round": 10}, 1, 6, 6),
        ({"per_round": 10, "quorum": 8}, 1, 6, 8),
        ({"per_round": 20}, 2, 12, 12),
        ({"per_round": 20, "masked_colluders": 4}, 4, 13, 13),
        ({"per_round": 128}, 12, 71, 71),
        ({"per_round": 128, "masked_colluders": 42}, 42, 86, 86),
        ({"per_round": 16, "over_select": 4}, 2, 12, 12),
    ],
)
def test_as_many_sign_and_are_summed_as_the_bounds_say(
    given: dict[str, Any], colluders: int, threshold: int, least: int
) -> None:
    """P16 in docs/privacy.md: a set of at least max(least, quorum)."""
    tested = masked(**given)
    members = tested.per_round + tested.over_select
    found = masking.masking_of(tested, {f"{n:03}": "A" * 86 for n in range(members)})
    assert (found.colluders, found.threshold, found.least) == (colluders, threshold, least)
    assert [one.client for one in found.message().members] == sorted(found.keys)
    assert Settings.model_validate(tested.model_dump()) == tested, "as run.json has it"


@given(data=st.data())
def test_every_cohort_that_may_be_selected_can_be_unmasked(data: st.DataObject) -> None:
    per_round = data.draw(st.integers(2, 128))
    colluders = data.draw(st.none() | st.integers(0, per_round - 2))
    try:
        tested = masked(
            per_round=per_round,
            masked_colluders=colluders,
            masked_min=data.draw(st.integers(2, per_round)),
            over_select=data.draw(st.integers(0, 128 - per_round)),
        )
    except UserError:
        return
    assert tested.per_round + tested.over_select <= masking.most_members(tested)
    for members in range(masking.fewest_members(tested), tested.per_round + tested.over_select + 1):
        found = masking.masking_of(tested, {f"{n:03}": "A" * 86 for n in range(members)})
        assert found.threshold <= found.least <= min(members, tested.per_round)
        assert found.least - found.colluders >= 2, "the sum is over two honest edges at least"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "async"}, "--masked: does not go with --mode async: only members of one round"),
        ({"encoding": "q8"}, "--masked: does not go with --encoding q8: a masked update is as long as"),
        ({"encoding": "bf16"}, "--masked: does not go with --encoding bf16"),
        ({"encoding": "topk:0.01"}, "--masked: does not go with --encoding topk:0.01"),
        ({"encoding": "shuffle-deflate"}, "--masked: does not go with --encoding shuffle-deflate"),
        ({"similarity": 2}, "--masked: does not go with --similarity 2: each update is needed"),
        ({"personalize": 1}, "--masked: does not go with --personalize 1: each edge would say how good"),
        (
            {"max_buffer": 10.0},
            "--masked: does not go with --max-buffer 10: in a masked run it is --max-delta",
        ),
        ({"per_round": 120, "over_select": 9}, "at most 128 edges, but --per-round + --over-select is 129"),
        ({"per_round": 129}, "a round has at most 128 edges, but --per-round + --over-select is 129"),
        ({"per_round": 4}, "--masked-min: a sum has at least 5 updates, but --per-round is 4"),
        ({"clients": 3}, "--masked-min: a sum has at least 5 updates, but --per-round is 3"),
        ({"masked_colluders": 9}, "--masked-colluders: 9 need 11 edges in a round, but --per-round is 10"),
        (
            {"over_select": 9},
            "--over-select: 9: with --masked, 11 of 19 edges unmask the sum, but --per-round is",
        ),
        ({"masked": False, "masked_min": 6}, "--masked-min: has a meaning with --masked only"),
        (
            {"max_examples": 10**9, "max_delta": 1.0},
            "--max-examples: with --masked, 1000000000 must not exceed 439804651",
        ),
        ({"masked": False, "masked_colluders": 2}, "--masked-colluders: has a meaning with --masked only"),
        ({"masked": False, "unmask_wait": 9.0}, "--unmask-wait: has a meaning with --masked only"),
        ({"unmask_wait": 0.0}, "--unmask-wait 0.0: "),
        ({"masked_min": 129}, "--masked-min 129: "),
        (
            {"strategy": "krum:bad=1"},
            "does not go with --strategy krum:bad=1: it needs each update, and masked",
        ),
        ({"combine": "median"}, "--masked: does not go with --combine median: it needs each update"),
        ({"strategy": "trimmed-mean"}, "--masked: does not go with --strategy trimmed-mean: it needs each"),
        (
            {"strategy": "geometric-median"},
            "--masked: does not go with --strategy geometric-median: it needs",
        ),
        (
            {"strategy": "scaffold"},
            "--masked: does not go with --strategy scaffold: it sends a second vector",
        ),
        (
            {"correct": ("scaffold",)},
            "--masked: does not go with --correct scaffold: it sends a second vector",
        ),
        (
            {"strategy": "fednova", "momentum": 0.5, "epochs": 1},
            "does not go with --strategy fednova: it weighs updates",
        ),
        ({"strategy": "q-fedavg", "lr": 0.1}, "does not go with --strategy q-fedavg: it weighs updates"),
        ({"combine": "mean:equal=true"}, "--masked: does not go with --combine mean:equal=true: it weighs"),
        ({"strategy": "fedexp"}, "--masked: does not go with --strategy fedexp: it weighs updates otherwise"),
        ({"server_optimizer": "extrapolation"}, "with --server-optimizer extrapolation: it needs the norm"),
        (
            {"transform": ("clip:norm=1",)},
            "--masked: does not go with --transform clip:norm=1: it scales each",
        ),
    ],
)
def test_what_does_not_go_with_masks_is_refused_naming_both_options(given: dict[str, Any], said: str) -> None:
    """P20 in docs/privacy.md."""
    with pytest.raises(UserError) as refused:
        registry.resolved(masked(**given))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "given",
    [
        *(
            {"strategy": name}
            for name in ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "fedprox")
        ),
        {"over_select": 3},
        {"keep_local": ("fc2.*",)},
        {"require_sealed": True},
        {"pace": "auto"},
        {"model_encoding": "bf16"},
        {"serve": "average:3"},
        {"target": "accuracy=0.9"},
        {"precision": "bf16"},
        {"durability": "memory"},
    ],
)
def test_what_goes_with_masks(given: dict[str, Any]) -> None:
    assert registry.resolved(masked(**given)).sums.needs_each, "a region has only sums to give"


def test_buffers_have_the_cap_of_parameters_since_masked_values_cannot_be_split() -> None:
    assert masked(max_delta=7.0).max_buffer == masked(max_delta=7.0, max_buffer=1e12).max_buffer == 7.0
    assert masked().max_buffer == 100.0
    assert parse_settings().max_buffer == 1e12
