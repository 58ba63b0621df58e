"""What an aggregator tries on masked sums, with two of nine members: it learns one sum of a round, and no update.

The adversary has all that the aggregator and its colluders have, and solves for single updates with all of it. Edges
mask, sign and open with their own code and files, started anew for each answer, so each row holds after a restart too.
The clauses P1 to P20 are those of docs/privacy.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_shared.masking import answers, run_keys
from fl_shared.masking.shares import SharesSection
from fl_shared.protocol import messages as m
from tests.support.attacks.played_aggregator import (
    CLIENTS,
    OTHERS,
    THRESHOLD,
    VICTIM,
    PlayedAggregator,
    announced,
    credential,
)
from tests.support.builders import fold_settings, partition, training_request
from tests.support.masked_edges import RUN, text_of
from tests.support.masked_rounds import fixed

PRIME = 2**255 - 19


@pytest.fixture(scope="module", autouse=True)
def keys_are_checked_once() -> Iterator[None]:
    """Edges that are started anew check the same keys again, which would be half of the work here."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((run_keys, "is_signature"), (run_keys, "_is_point"), (answers, "is_signature")):
            patch.setattr(module, name, cache(getattr(module, name)))
        yield


@pytest.fixture
def run(tmp_path: Path) -> PlayedAggregator:
    return PlayedAggregator(tmp_path)


def without(bodies: dict[str, str], *clients: str) -> dict[str, str]:
    return {name: body for name, body in bodies.items() if name not in clients}


def test_colluders_who_obey_learn_the_sum_and_no_update(run: PlayedAggregator) -> None:
    selected = run.selected()
    bodies = run.train(selected)
    run.unmask(selected, without(bodies, "b", "c", "i"))
    assert (run.adversary.sums(), run.learnt()) == (1, set())


def test_one_colluder_more_than_allowed_learns_an_update(tmp_path: Path) -> None:
    """The limit is real: with three, two sets have enough signatures, since no honest member must sign both."""
    run = PlayedAggregator(tmp_path, bad=3)
    selected = run.selected()
    bodies = run.train(selected)
    run.unmask(selected, bodies, ("a", "b", "c", *run.colluders))
    run.unmask(selected, without(bodies, VICTIM), ("d", "e", "f", *run.colluders))
    assert (run.adversary.sums(), run.learnt()) == (2, {VICTIM})


@pytest.mark.parametrize("first", [0, 3, 4, 7])
def test_no_two_sets_of_a_round_are_opened_however_members_are_asked(
    run: PlayedAggregator, first: int
) -> None:
    """The victim is declared lost to some, and included to the others."""
    selected = run.selected()
    bodies = run.train(selected)
    some, others = run.honest[:first], run.honest[first:]
    run.unmask(selected, bodies, (*some, *run.colluders))
    run.unmask(selected, without(bodies, VICTIM), (*others, *run.colluders))
    enough = max(len(some), len(others)) >= THRESHOLD - len(run.colluders)
    assert (run.adversary.sums(), run.learnt()) == (int(enough), set())


# --- another set ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"incarnation": 2}, {"seq": 9}], ids=str)
def test_a_second_set_in_a_round_is_not_signed(run: PlayedAggregator, changes: dict[str, Any]) -> None:
    """P12, P17: also not for an aggregator that was resumed, or put back to before the first one."""
    selected = run.selected()
    bodies = run.train(selected)
    run.unmask(selected, bodies)
    fewer = without(bodies, VICTIM)
    signed = run.sign(selected, fewer, **changes)
    assert signed.reasons == dict.fromkeys(run.honest, "another-set")
    assert run.open(selected, fewer, signed.given).reasons == dict.fromkeys(run.honest, "wrong-signatures")
    assert (run.adversary.sums(), run.learnt()) == (1, set())


@pytest.mark.parametrize("count", [1, THRESHOLD - 1])
def test_a_small_set_is_not_signed(run: PlayedAggregator, count: int) -> None:
    """P12: fewer than `least`."""
    selected = run.selected()
    bodies = {name: body for name, body in run.train(selected).items() if name in CLIENTS[:count]}
    signed = run.sign(selected, bodies)
    assert signed.reasons == dict.fromkeys(run.honest, "too-small")
    assert run.open(selected, bodies, signed.given).reasons == signed.reasons
    assert (run.adversary.sums(), run.learnt()) == (0, set())


def test_an_edge_that_was_wiped_signs_nothing(run: PlayedAggregator) -> None:
    """P15: its record is gone, and its keys with it."""
    selected = run.selected()
    bodies = run.train(selected)
    run.unmask(selected, bodies)
    for client in run.honest:
        shutil.rmtree(run.directory / client)
        (run.directory / client).mkdir()
    fewer = without(bodies, VICTIM)
    assert run.sign(selected, fewer).reasons == dict.fromkeys(run.honest, "no-keys")
    for client in run.honest:
        run.edges.member(client).make_keys(RUN, 0.0)
    assert run.sign(selected, fewer).reasons == dict.fromkeys(run.honest, "not-a-member")
    assert (run.adversary.sums(), run.learnt()) == (1, set())


def test_a_late_update_stays_masked(run: PlayedAggregator) -> None:
    """P14: what was said to be lost has its own mask, whatever is asked of its round later."""
    selected = run.selected()
    others = run.train(selected, CLIENTS[1:])
    run.unmask(selected, others)
    late = {**others, **run.train(selected, VICTIM)}
    assert run.sign(selected, late).reasons == dict.fromkeys(run.honest, "another-set")
    assert (run.adversary.sums(), run.learnt()) == (1, set())


def test_an_update_that_was_masked_twice_stays_masked(run: PlayedAggregator) -> None:
    """P9: a restarted edge masks again, and one of both updates is in the set."""
    selected = run.selected()
    bodies = run.train(selected)
    again = run.train(selected, VICTIM)
    assert again[VICTIM] != bodies[VICTIM]
    run.unmask(selected, {**bodies, **again})
    run.unmask(selected, bodies)
    assert (run.adversary.sums(), run.learnt()) == (1, set())


# --- another plan -----------------------------------------------------------------------------------------

PLANS: dict[str, dict[str, Any]] = {
    "learning rate": {"training": training_request(lr=9.0)},
    "base": {"base": m.ModelReference(version=0, digest="c" * 64)},
    "cap": {"fold": fold_settings(max_delta=7.0)},
    "cohort": {"cohort": (*CLIENTS[:1], *OTHERS, *CLIENTS[4:])},
}


@pytest.mark.parametrize("what", PLANS)
def test_a_victim_with_another_plan_is_in_no_sum(run: PlayedAggregator, what: str) -> None:
    """P5 (Pasquini, Francati, Ateniese 2022): an update for another model or rate would stand out of a sum."""
    selected, other = run.selected(), run.selected(**PLANS[what])
    bodies = run.train(selected, CLIENTS[1:]) | run.train(other, VICTIM)
    signed = run.sign(selected, bodies)
    assert signed.reasons == {VICTIM: "wrong-plan"}
    assert run.open(selected, bodies, signed.given).reasons == {VICTIM: "wrong-plan"}
    assert (run.adversary.sums(), run.learnt()) == (0, set())


PARTITIONS: dict[str, dict[str, Any]] = {
    "holdout": {"holdout": 0.0},
    "number of examples": {"examples": 20},
    "scheme": {"scheme": "own"},
}


@pytest.mark.parametrize("who", ["the victim", "all others"])
@pytest.mark.parametrize("what", PARTITIONS)
def test_a_victim_with_another_partition_is_in_no_sum(run: PlayedAggregator, what: str, who: str) -> None:
    """P5: if nearly all data of the others were held out, the sum would be nearly the update of the victim."""
    told = [VICTIM] if who == "the victim" else run.honest[1:]
    run.edges.partitions = dict.fromkeys(told, partition(**PARTITIONS[what]))
    selected = run.selected()
    bodies = run.train(selected)
    signed = run.sign(selected, bodies)
    assert signed.reasons == dict.fromkeys(told, "wrong-plan")
    run.open(selected, bodies, signed.given)
    assert (run.adversary.sums(), run.learnt()) == (0, set())


def test_a_partition_that_changes_between_mask_and_signature_changes_nothing(run: PlayedAggregator) -> None:
    """P5, P12: the update has the plan of the partition that it is trained on."""
    selected = run.selected()
    run.edges.partitions = {VICTIM: partition(holdout=0.0)}
    bodies = run.train(selected)
    run.edges.partitions = {}
    assert run.sign(selected, bodies).reasons == {VICTIM: "another-set"}
    assert (run.adversary.sums(), run.learnt()) == (0, set())


@pytest.mark.parametrize("victim_first", [True, False])
def test_two_plans_in_a_round_are_not_masked_for(run: PlayedAggregator, victim_first: bool) -> None:
    """P7: each member signs one set, and the difference of the two would be the victim's update."""
    both = CLIENTS[1:5]
    plans = [
        (run.selected(), (VICTIM, *both, *run.colluders), (*CLIENTS[5:7], VICTIM, both[0], *run.colluders)),
        (
            run.selected(cohort=(*both, *OTHERS, *run.colluders)),
            (*both, *run.colluders),
            (*OTHERS, both[1], *run.colluders),
        ),
    ]
    for selected, included, signers in plans if victim_first else plans[::-1]:
        run.unmask(selected, run.train(selected, included), signers)
    assert (run.adversary.sums(), run.learnt()) == (1, set())


@pytest.mark.parametrize("replayed", [True, False])
def test_an_older_round_is_not_masked_for(run: PlayedAggregator, replayed: bool) -> None:
    """P7: its selection is sent again, or for another cohort."""
    first, second = run.selected(1), run.selected(2)
    run.unmask(first, run.train(first))
    run.unmask(second, run.train(second, update=" in round 2"))
    again = first if replayed else run.selected(1, cohort=(*CLIENTS[1:], *OTHERS))
    assert not set(run.train(again)) - set(run.colluders)
    assert (run.adversary.sums(), run.learnt()) == (2, set())


@pytest.mark.parametrize("newer_first", [True, False])
def test_no_two_noises_of_one_update_are_seen(run: PlayedAggregator, newer_first: bool) -> None:
    """P7, P12, and D14 in docs/differential-privacy.md: the mean of both would have less noise than one.

    An edge that is started again, and has lost its update, makes another one for the same plan, with other noise.
    """
    selected = run.selected(privacy=m.RoundPrivacy(mechanism="distributed", clip=1.0, noise=2.0))
    bodies = run.train(selected)
    again = {**bodies, **run.train(selected, (VICTIM,), update=" with other noise")}
    assert again[VICTIM] != bodies[VICTIM]
    first, second = (again, bodies) if newer_first else (bodies, again)
    run.unmask(selected, first)
    assert run.sign(selected, second).reasons == dict.fromkeys(run.honest, "another-set")
    fewer = without(second, *OTHERS, "b", "c")
    assert run.sign(selected, fewer).reasons == dict.fromkeys(run.honest, "another-set")
    assert (run.adversary.sums(), run.learnt()) == (1, set())


def test_no_member_adds_other_noise_than_the_others(run: PlayedAggregator) -> None:
    """P5, and D14 in docs/differential-privacy.md: edges that were told different noise have no masks in common."""
    told = [m.RoundPrivacy(mechanism="distributed", clip=1.0, noise=noise) for noise in (2.0, 0.01)]
    selected, weaker = (run.selected(privacy=one) for one in told)
    bodies = run.train(selected, CLIENTS[1:]) | run.train(weaker, (VICTIM,))
    run.unmask(selected, bodies)
    run.unmask(weaker, bodies)
    assert run.learnt() == set()
    assert run.adversary.sums() == 0


# --- another member ---------------------------------------------------------------------------------------


def twin(mask: bytes) -> bytes:
    """Another key with the same products: it differs by a point of order 2 (RFC 7748, section 7)."""
    return pow(int.from_bytes(mask, "little"), -1, PRIME).to_bytes(32, "little")


KEYS = (
    "nobody has certified",
    "were good once",
    "are another's",
    "are of another run",
    "another authority has certified",
    "are the victim's",
)


def keys_that(what: str, run: PlayedAggregator) -> str:
    """What the last member has announced."""
    own = run.private("i").public
    match what:
        case "nobody has certified":
            return text_of(own.mask + own.agree)
        case "were good once":
            return announced("i", own.mask, own.agree, credential("i", until=999))
        case "are another's":
            return announced("h", own.mask, own.agree)
        case "are of another run":
            return announced("i", own.mask, own.agree, run="S")
        case "another authority has certified":
            other = Ed25519PrivateKey.from_private_bytes(fixed("another authority"))
            return announced("i", own.mask, own.agree, credential("i", by=other))
        case _:
            return announced("i", run.private(VICTIM).public.mask, own.agree)


@pytest.mark.parametrize("what", KEYS)
def test_no_member_takes_part_with_keys_that(run: PlayedAggregator, what: str) -> None:
    """P4, P6."""
    selected = run.selected(keys={"i": keys_that(what, run)})
    assert run.train(selected, run.honest) == {}
    bodies = dict.fromkeys(CLIENTS, "0" * 64)
    reason = "wrong-plan" if what == "are the victim's" else "policy"
    assert run.sign(run.selected(), bodies).reasons == dict.fromkeys(run.honest, reason)


def test_a_key_with_the_products_of_the_victims_opens_nothing(run: PlayedAggregator) -> None:
    """10.6: it gets lost, so its seeds are opened, and those of the victim would be the same."""
    own, victim = run.private("i").public, run.private(VICTIM).public
    selected = run.selected(keys={"i": announced("i", twin(victim.mask), own.agree)})
    bodies = run.train(selected, CLIENTS[:-1])
    assert set(bodies) == set(CLIENTS[:-1])
    run.unmask(selected, bodies)
    assert (run.adversary.sums(), run.learnt()) == (1, set())


@pytest.mark.parametrize(
    ("cohort", "colluders"), [((VICTIM, "b", "h", "i"), 2), (CLIENTS, 1), ((VICTIM, "h"), 0), (CLIENTS, 0)]
)
def test_an_edge_takes_no_part_in_what_promises_less_than_it_requires(
    run: PlayedAggregator, cohort: tuple[str, ...], colluders: int
) -> None:
    """P19: sums of five at least, among whom two may collude."""
    selected = run.selected(cohort=cohort, colluders=colluders)
    assert run.sign(selected, dict.fromkeys(cohort, "0" * 64), [VICTIM]).reasons == {VICTIM: "policy"}


# --- what is not signed by enough --------------------------------------------------------------------------


def signatures(run: PlayedAggregator, what: str) -> tuple[m.Selected, dict[str, str], Mapping[str, bytes]]:
    first = run.selected(1)
    bodies = run.train(first)
    real = run.sign(first, bodies).given
    match what:
        case "one less":
            return first, bodies, dict(list(real.items())[: THRESHOLD - 1])
        case "one many times":
            return first, bodies, dict.fromkeys(CLIENTS, real["i"])
        case "foreign":
            return first, bodies, {name: run.private("i").agree.sign(b"x") for name in CLIENTS}
        case "old":
            second = run.selected(2)
            return second, run.train(second), real
        case _:
            return first, without(bodies, "b"), real


@pytest.mark.parametrize("what", ["one less", "one many times", "foreign", "old", "of another set"])
def test_a_reveal_needs_the_signatures_of_enough_members(run: PlayedAggregator, what: str) -> None:
    """P13."""
    selected, bodies, given = signatures(run, what)
    assert run.open(selected, bodies, given).reasons == dict.fromkeys(run.honest, "wrong-signatures")
    assert (run.adversary.sums(), run.learnt()) == (0, set())


# --- what is not for this set ------------------------------------------------------------------------------


def test_the_package_of_one_update_is_not_opened_as_that_of_another(run: PlayedAggregator) -> None:
    """P10, P14: the lost victim's, so that both of its masks would be opened in one reveal."""
    selected = run.selected()
    bodies = run.train(selected)
    fewer = without(bodies, VICTIM)
    signed = run.sign(selected, fewer).given
    plan = run.edges.plan(selected)
    section = SharesSection.of(plan, run.sections[bodies[VICTIM]].shares)
    for client in run.honest:
        package = text_of(section.package(plan.index(client)))
        given = run.open(selected, fewer, signed, [client], dict.fromkeys(fewer, package)).given
        assert not any(given[client])
    assert (run.adversary.sums(), run.learnt()) == (0, set())


def test_shares_of_one_round_are_not_opened_in_the_next(run: PlayedAggregator) -> None:
    """P10."""
    first, second = run.selected(1), run.selected(2)
    old = run.train(first)
    run.train(second, update=" in round 2")
    given = run.open(second, old, run.sign(second, old).given).given
    assert {any(shares) for shares in given.values()} == {False}
    assert (run.adversary.sums(), run.learnt()) == (0, set())
