"""Shares are joined and compared with commitments; who lies is left out, and named if that can be told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl_shared.masking.shares import SharesSection, shares_size
from fl_shared.masking.streams import DELTA_STREAM, TALLIES_STREAM, add_masks
from fl_shared.masking.unmasking import (
    Opened,
    UnmaskFailed,
    Unmasking,
    disagreements,
    find_masks,
    opened_size,
)
from tests.support.masked_rounds import MaskedRound, plan_with

CLIENTS = tuple("abcdefghij")  # 1 colluder, so the threshold is 6
HERE = CLIENTS[:8]


def closed(colluders: int = 1, **others: Any) -> MaskedRound:
    made = MaskedRound(plan_with(CLIENTS, colluders, **others))
    for client in HERE:
        made.upload(client, np.arange(8) - 4, np.arange(8))
    return made


def is_unmasked(made: MaskedRound, found: Unmasking) -> bool:
    total, tallies = made.sums()
    add_masks(total, found.masks, DELTA_STREAM)
    add_masks(tallies, found.masks, TALLIES_STREAM)
    count = len(made.uploads)
    sums = total.astype(np.int64).tolist(), tallies.tolist()
    return bool(sums == ((count * (np.arange(8) - 4)).tolist(), (count * np.arange(8)).tolist()))


def changed_share(one: Opened, place: int, by: int = 1) -> Opened:
    changed = bytearray(one.shares)
    changed[place] ^= by
    return replace(one, shares=bytes(changed))


@pytest.mark.parametrize("holders", [CLIENTS, CLIENTS[:6], CLIENTS[4:]])
def test_the_sum_is_unmasked_by_any_threshold_of_members(holders: str) -> None:
    made = closed()
    opened = made.opened(holders)
    assert {len(one.shares) for one in opened.values()} == {opened_size(made.plan, HERE)}
    found = find_masks(made.plan, made.sections, opened)
    assert is_unmasked(made, found)
    assert not found.disputes
    assert len(found.masks) == len(HERE) * 3


def test_no_sum_with_one_holder_less() -> None:
    made = closed()
    with pytest.raises(UnmaskFailed, match="5 members have opened the shares of a, expected 6") as failed:
        find_masks(made.plan, made.sections, made.opened(CLIENTS[:5]))
    assert failed.value.client is None


@pytest.mark.parametrize(("liars", "asked"), [("a", "a"), ("j", ""), ("ab", "ab"), ("aeh", "aeh")])
def test_holders_who_lie_are_left_out_and_named(liars: str, asked: str) -> None:
    """``asked``: those whose shares are needed at first, or in place of another's."""
    made = closed(colluders=len(liars))
    opened = made.opened(CLIENTS)
    rows = opened_size(made.plan, HERE) // 16
    for by, liar in zip((1, 99, 18), liars, strict=False):  # equal errors might cancel
        for row in range(rows):
            opened[liar] = changed_share(opened[liar], 16 * row, by)
    found = find_masks(made.plan, made.sections, opened)
    assert is_unmasked(made, found)
    assert found.liars(made.plan.colluders) == set(asked)


def test_one_wrong_share_is_a_dispute_of_two() -> None:
    made = closed()
    opened = made.opened(CLIENTS)
    opened["b"] = changed_share(opened["b"], 0)
    found = find_masks(made.plan, made.sections, opened)
    assert is_unmasked(made, found)
    assert found.disputes == [("b", "a")]
    assert not found.liars(colluders=1)


def test_who_lies_for_certain() -> None:
    disputes = [("a", "b"), ("b", "a"), ("c", "d"), ("c", "e"), ("f", "f")]
    assert Unmasking((), disputes).liars(colluders=1) == {"c", "f"}
    assert Unmasking((), disputes).liars(colluders=2) == {"f"}


def test_without_spares_a_lie_cannot_be_told_from_another() -> None:
    made = closed()
    opened = made.opened(CLIENTS[:6])
    opened["b"] = changed_share(opened["b"], 0)
    with pytest.raises(
        UnmaskFailed, match="shares of a do not give the seeds that it has committed to"
    ) as failed:
        find_masks(made.plan, made.sections, opened)
    assert failed.value.client is None


def test_a_client_with_wrong_commitments_is_named() -> None:
    made = closed()
    changed = bytearray(made.uploads["c"].shares)
    changed[16 + 32 * made.plan.index("c")] ^= 1
    sections = {**made.sections, "c": SharesSection.of(made.plan, bytes(changed))}
    with pytest.raises(UnmaskFailed, match="the shares of c do not give") as failed:
        find_masks(made.plan, sections, made.opened(CLIENTS))
    assert failed.value.client == "c"


def test_a_client_whose_packages_nobody_can_open_is_named() -> None:
    made = closed()
    opened = {name: replace(one, unopened=("d",)) for name, one in made.opened(CLIENTS).items()}
    with pytest.raises(UnmaskFailed, match="0 members have opened the shares of d") as failed:
        find_masks(made.plan, made.sections, opened)
    assert failed.value.client == "d"
    assert failed.value.short == made.plan.threshold


def test_who_could_not_open_one_package_helps_with_the_others() -> None:
    made = closed()
    opened = made.opened(CLIENTS[:7])
    zeros = bytes(48) + opened["a"].shares[48:]
    opened["a"] = Opened(zeros, ("a",))
    assert is_unmasked(made, find_masks(made.plan, made.sections, opened))


def test_shares_of_a_wrong_length_name_their_holder() -> None:
    made = closed()
    opened = made.opened(CLIENTS)
    opened["e"] = Opened(opened["e"].shares[:-1])
    with pytest.raises(UnmaskFailed, match=r"383 bytes of shares of e, expected 384") as failed:
        find_masks(made.plan, made.sections, opened)
    assert failed.value.client == "e"


def test_10_7_both_members_of_a_pair_commit_to_the_same_seed() -> None:
    made = closed()
    sections = made.sections
    assert disagreements(made.plan, "a", sections["a"], sections) == ()
    for other in (closed(training={"lr": 1.0}), closed(round=2)):
        assert disagreements(made.plan, "a", other.sections["a"], sections) == HERE[1:]
    changed = bytearray(made.uploads["a"].shares)
    changed[16 + 32 * made.plan.index("d")] ^= 1
    section = SharesSection.of(made.plan, bytes(changed))
    assert disagreements(made.plan, "a", section, sections) == ("d",)


def test_a_section_of_another_length_is_refused() -> None:
    made = closed()
    assert len(made.uploads["a"].shares) == shares_size(10) == 16 + 320 + 10 * 176
    with pytest.raises(ValueError, match="shares: 2095 bytes, expected 2096"):
        SharesSection.of(made.plan, made.uploads["a"].shares[:-1])
