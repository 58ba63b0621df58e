"""What a member does not sign, and what it does not open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from fl_shared.masking.answers import Declined, open_shares, sign_closing, signers
from fl_shared.masking.plan import CLOSING, Member
from fl_shared.masking.run_keys import is_signature
from fl_shared.masking.shares import pair_secret
from tests.support.masked_rounds import MaskedRound, Named, keys_of, member_of, plan_with

CLIENTS = ("a", "b", "c", "d", "e")  # 1 colluder, so the threshold is 4
HERE = CLIENTS[:4]


def closed(**others: Any) -> MaskedRound:
    """A round in which ``e`` is lost."""
    made = MaskedRound(plan_with(CLIENTS, **others))
    for client in HERE:
        made.upload(client, np.arange(8))
    return made


def opened(made: MaskedRound, named: Named, signatures: dict[str, bytes], holder: str = "a") -> object:
    return open_shares(made.plan, holder, keys_of(holder), named, signatures, made.packages(holder))


def test_a_signature_is_of_the_closing() -> None:
    made = closed()
    signature = sign_closing(made.plan, "e", keys_of("e"), made.named)  # also by who is not in the set
    digest = made.plan.closing(made.named.included)
    assert is_signature(keys_of("e").public.agree, signature, CLOSING + digest)
    assert sign_closing(made.plan, "e", keys_of("e"), made.named) == signature


WRONG_SETS: dict[str, tuple[str, str, Callable[[Named], Named]]] = {
    "another round": ("wrong-plan", "round 2 with plan", lambda one: replace(one, round=2)),
    "another plan": (
        "wrong-plan",
        "with plan ffffffffffff, expected",
        lambda one: replace(one, plan="f" * 64),
    ),
    "a stranger": (
        "not-a-member",
        "x is in the set, but no member",
        lambda one: replace(one, included={**one.included, "x": "0" * 64}),
    ),
    "too few": (
        "too-small",
        "3 updates, expected at least 4",
        lambda one: replace(one, included={name: one.included[name] for name in HERE[:3]}),
    ),
}


@pytest.mark.parametrize("what", WRONG_SETS)
def test_a_wrong_set_is_neither_signed_nor_opened(what: str) -> None:
    reason, said, change = WRONG_SETS[what]
    made = closed()
    wrong = change(made.named)
    digest = made.plan.closing(wrong.included)
    signatures = {name: keys_of(name).agree.sign(CLOSING + digest) for name in CLIENTS}
    answers: list[Callable[[], object]] = [
        lambda: sign_closing(made.plan, "a", keys_of("a"), wrong),
        lambda: opened(made, wrong, signatures),
    ]
    for answer in answers:
        with pytest.raises(Declined, match=said) as declined:
            answer()
        assert declined.value.reason == reason


@pytest.mark.parametrize(("client", "keys"), [("x", "x"), ("a", "x"), ("a", "b")])
def test_who_is_no_member_answers_nothing(client: str, keys: str) -> None:
    made = closed()
    with pytest.raises(Declined, match="no member of round 1 with its keys") as declined:
        sign_closing(made.plan, client, keys_of(keys), made.named)
    assert declined.value.reason == "not-a-member"


def test_shares_are_opened_against_enough_signatures_of_this_set_by_members() -> None:
    made = closed()
    good = made.signatures(HERE)
    foreign = {name: keys_of("x").agree.sign(b"x") for name in ("x", "y", "e")}
    plan, other = made.plan, closed(round=2)
    for few in (
        {name: good[name] for name in HERE[:3]},
        {**{name: good[name] for name in HERE[:3]}, **foreign},
        dict.fromkeys(CLIENTS, good["a"]),
        {**good, "d": bytes(64)},
        {**good, "d": b""},
        other.signatures(HERE),
    ):
        with pytest.raises(Declined, match="valid signatures, expected 4") as declined:
            opened(made, made.named, few)
        assert declined.value.reason == "wrong-signatures"
    assert signers(plan, plan.closing(made.named.included), good) == frozenset(HERE)
    opened(made, made.named, good, "e")


def test_never_are_both_masks_of_one_client_opened() -> None:
    """Of who is in the set: its own seed and those with who is lost. Of who is lost: nothing that it has sealed."""
    made = closed()
    late = made.upload("e", np.arange(8))
    made.uploads.pop("e")
    found = made.opened(CLIENTS)
    assert {len(one.shares) for one in found.values()} == {16 * len(HERE) * 2}
    packages = {**made.packages("a"), "e": late.shares[16 + 32 * 5 :][:96]}
    shares = open_shares(made.plan, "a", keys_of("a"), made.named, made.signatures(HERE), packages)
    assert shares.shares == found["a"].shares


def test_packages_that_cannot_be_opened_are_zeros() -> None:
    made = closed()
    packages = made.packages("b")
    packages["a"] = packages["a"][:-1] + bytes([packages["a"][-1] ^ 1])
    del packages["c"]
    packages["d"] = packages["d"][:20]
    found = open_shares(made.plan, "b", keys_of("b"), made.named, made.signatures(HERE), packages)
    assert found.unopened == ("a", "c", "d")
    assert found.shares[:32] == found.shares[64:96] == bytes(32)
    assert found.shares[32:64] != bytes(32)


def test_10_7_a_package_belongs_to_its_plan_its_update_and_its_holder() -> None:
    """P10, P11 in docs/privacy.md."""
    made, other = closed(), closed(training={"lr": 1e-9})
    signatures = made.signatures(HERE)
    body = dict(made.named.included) | {"c": "0" * 64}
    changed = replace(made.named, included=body)
    digest = made.plan.closing(body)
    signed = {name: keys_of(name).agree.sign(CLOSING + digest) for name in HERE}
    for named, given, packages, unopened in (
        (made.named, signatures, other.packages("a"), HERE),
        (made.named, signatures, made.packages("b"), HERE),
        (changed, signed, made.packages("a"), ("c",)),
    ):
        found = open_shares(made.plan, "a", keys_of("a"), named, given, packages)
        assert found.unopened == unopened


def test_10_6_keys_with_the_same_products_give_other_seeds() -> None:
    """u and 1/u differ by a point of order 2, which no private key sees (RFC 7748, sections 5 and 7)."""
    own, victim = keys_of("a").mask, member_of("b")
    twin = pow(int.from_bytes(victim.mask, "little"), -1, 2**255 - 19).to_bytes(32, "little")
    products = [own.exchange(X25519PublicKey.from_public_bytes(key)) for key in (victim.mask, twin)]
    assert products[0] == products[1]
    plan = plan_with(CLIENTS, members=(*map(member_of, CLIENTS[:4]), Member("e", twin, member_of("e").agree)))
    secrets = [pair_secret(plan.digest, "a", own, other) for other in plan.members]
    assert len(set(secrets)) == len(secrets)
