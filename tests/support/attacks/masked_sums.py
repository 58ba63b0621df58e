"""Attacks on masked sums, which other tests make: by an aggregator and members who work with it, or by members."""

from __future__ import annotations

from typing import Final

from tests.support.attacks.attack import CoveredElsewhere, Where
from tests.support.attacks.cluster import SEALED

MEMBERS: Final = "the aggregator with 2 of 9 members"
RULES: Final = "tests/attacks/test_masked.py"
SUM: Final = "tests/unit/fl_aggregator/aggregation/test_masked_sum.py"
JOINED: Final = "tests/unit/fl_shared/masking/test_unmasking.py"


def _row(name: str, seen: str, test: str, who: str = MEMBERS, refused: Where = "edge") -> CoveredElsewhere:
    return CoveredElsewhere(name, who, refused, seen, SEALED, test)


ROWS: Final = (
    _row(
        "masked sums: all that they have, in a round that goes well", "the sum, and no update",
        f"{RULES}::test_colluders_who_obey_learn_the_sum_and_no_update",
    ),
    _row(
        "masked sums: a second set in a round, also after a resume or a roll-back", "`declined`: `another-set`",
        f"{RULES}::test_a_second_set_in_a_round_is_not_signed",
    ),
    _row(
        "masked sums: another set, or another plan, after an edge was killed and the aggregator put back",
        "`declined`: `another-set`, `wrong-signatures`; `failed`",
        "tests/attacks/test_masked_over_the_wire.py::test_an_edge_that_was_killed_masks_and_signs_nothing_else",
        "the aggregator with 4 of 5 members",
    ),
    _row(
        "masked sums: a victim that is lost to some members and included to the others",
        "too few signatures of one of the sets",
        f"{RULES}::test_no_two_sets_of_a_round_are_opened_however_members_are_asked",
    ),
    _row(
        "masked sums: a set of one update, or of one fewer than agreed", "`declined`: `too-small`",
        f"{RULES}::test_a_small_set_is_not_signed",
    ),
    _row(
        "masked sums: another learning rate, base, cap or cohort for the victim",
        "`declined`: `wrong-plan`; no sum with its update",
        f"{RULES}::test_a_victim_with_another_plan_is_in_no_sum",
    ),
    _row(
        "masked sums: another partition (holdout, number of examples, scheme) for the victim than for the others",
        "`declined`: `wrong-plan`; no sum with its update",
        f"{RULES}::test_a_victim_with_another_partition_is_in_no_sum",
    ),
    _row(
        "masked sums: two plans in a round, of which each member signs one set", "`failed`; nothing is masked twice",
        f"{RULES}::test_two_plans_in_a_round_are_not_masked_for",
    ),
    _row(
        "masked sums: the selection of an older round once more, or for another cohort", "`failed`; nothing is masked",
        f"{RULES}::test_an_older_round_is_not_masked_for",
    ),
    _row(
        "masked sums: a member without a certificate, with an expired one, another's, one of another run or "
        "authority, or with the victim's key", "`failed`; `declined`: `policy`, `wrong-plan`",
        f"{RULES}::test_no_member_takes_part_with_keys_that",
    ),
    _row(
        "masked sums: a member key that is other than the victim's and has the same products; its owner gets lost",
        "the sum, and no update", f"{RULES}::test_a_key_with_the_products_of_the_victims_opens_nothing",
    ),
    _row(
        "masked sums: fewer members, or fewer who may collude, than an edge requires", "`failed`; `declined`: `policy`",
        f"{RULES}::test_an_edge_takes_no_part_in_what_promises_less_than_it_requires",
    ),
    _row(
        "masked sums: shares asked for with a signature too few, repeated, foreign, old, or of another set",
        "`declined`: `wrong-signatures`", f"{RULES}::test_a_reveal_needs_the_signatures_of_enough_members",
    ),
    _row(
        "masked sums: both masks of one update, by a package under another name", "`unopened`; zeros",
        f"{RULES}::test_the_package_of_one_update_is_not_opened_as_that_of_another",
    ),
    _row(
        "masked sums: shares of one round, asked for in the next", "`unopened`; zeros",
        f"{RULES}::test_shares_of_one_round_are_not_opened_in_the_next",
    ),
    _row(
        "masked sums: edges whose state is deleted, asked to sign once more", "`declined`: `no-keys`, `not-a-member`",
        f"{RULES}::test_an_edge_that_was_wiped_signs_nothing",
    ),
    _row(
        "masked sums: an update that comes late, or that was masked twice, unmasked afterwards",
        "`declined`: `another-set`",
        f"{RULES}::test_a_late_update_stays_masked",
    ),
    _row(
        "masked sums: one colluder more than agreed", "**it succeeds**: two sets, and their difference",
        f"{RULES}::test_one_colluder_more_than_allowed_learns_an_update", "the aggregator with 3 of 9 members",
    ),
    _row(
        "masked sums: wrong shares of others' masks", "left out, and named",
        f"{JOINED}::test_holders_who_lie_are_left_out_and_named",
        "members", "aggregator",
    ),
    _row(
        "masked sums: commitments that are not those of the shares", "the round is abandoned; it is named",
        f"{JOINED}::test_a_client_with_wrong_commitments_is_named", "a member", "aggregator",
    ),
    _row(
        "masked sums: random bytes as a masked update", "the round is abandoned: the sum is implausible",
        f"{SUM}::test_a_sum_that_no_edges_can_have_is_implausible", "a member", "aggregator",
    ),
)  # fmt: skip
