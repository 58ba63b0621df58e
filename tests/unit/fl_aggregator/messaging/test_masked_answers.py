"""Keys for a run are taken from an edge only if the enrolment key has certified them, where there are kits."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_aggregator.messaging.masked_answers import MaskedAnswers
from fl_aggregator.messaging.revoked_kits import RevokedKits
from fl_aggregator.round import effects as do
from fl_aggregator.round.roster import Roster
from fl_shared.masking.run_keys import MemberCredential, RunKeys
from fl_shared.security.revocations import RevocationList
from fl_shared.security.vouchers import member_bytes
from tests.support.builders import registration

LATER = 2**40
ENROLMENT = Ed25519PrivateKey.generate()


def credential(client: str, until: int = LATER) -> MemberCredential:
    member = Ed25519PrivateKey.generate()
    public = member.public_key().public_bytes_raw()
    voucher = ENROLMENT.sign(member_bytes(client, public, until))
    return MemberCredential(member.private_bytes_raw(), until, voucher)


@pytest.mark.parametrize(
    ("run", "client", "certified", "said"),
    [
        ("r", "7", credential("7"), None),
        ("r", "7", None, "keys: not certified, expected a certificate from a kit"),
        ("other", "7", credential("7"), "keys: the member key of 7 has not signed these keys for run r"),
        ("r", "8", credential("8"), "keys: the enrolment key has not certified this member key for 7"),
        ("r", "7", credential("7", until=1), "keys: the certificate of 7 has expired"),
    ],
)
def test_with_kits_keys_must_be_certified(
    run: str, client: str, certified: MemberCredential | None, said: str | None
) -> None:
    keys = RunKeys.generate(os.urandom).announce(run, client, certified)
    answers = MaskedAnswers(ENROLMENT.public_key().public_bytes_raw())
    found = answers.refusal(registration("7", keys=keys), "r")
    if said is None:
        assert found is None
        return
    assert found is not None
    assert isinstance(found.body, do.Refuse)
    assert found.body.reason == "bad-run-keys"
    assert found.body.detail.startswith(said)


def test_in_a_lab_any_keys_will_do() -> None:
    keys = RunKeys.generate(os.urandom).announce("any", "other", None)
    assert MaskedAnswers().refusal(registration("7", keys=keys), "r") is None
    assert MaskedAnswers().refusal(registration("7"), "r") is None, "the round machine says what is missing"


def test_a_member_key_of_a_revoked_kit_certifies_nothing() -> None:
    certified, revoked = credential("7"), RevokedKits()
    member = Ed25519PrivateKey.from_private_bytes(certified.private).public_key().public_bytes_raw()
    answers = MaskedAnswers(ENROLMENT.public_key().public_bytes_raw(), revoked)
    message = registration("7", keys=RunKeys.generate(os.urandom).announce("r", "7", certified))
    assert answers.refusal(message, "r") is None
    revoked.replace(RevocationList(number=1, accounts=(), keys=(member.hex(),)), Roster())
    found = answers.refusal(message, "r")
    assert found is not None
    assert found.body == do.Refuse("bad-run-keys", "keys: the member key is in a revoked kit of '7'")
