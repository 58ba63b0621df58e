"""Makes a kit: with private keys of its own, or for the keys of the device that has asked for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_aggregator.tools.provision.accounts import AGGREGATOR, Account, AccountRegister
from fl_aggregator.tools.provision.authority import Authority
from fl_aggregator.tools.provision.requests import RequestedKeys
from fl_shared.security.kit import Kit
from fl_shared.security.vouchers import voucher_roles


def make_kit(
    account: Account, password: str | None, register: AccountRegister, authority: Authority, now: datetime
) -> Kit:
    """The kit of an account, which has the ``password``, or else a certificate."""
    location = register.place
    assert register.broker_pin is not None
    keys = (
        _own_keys(account, authority, now, location.days)
        if account.requested is None
        else _vouched_keys(account, account.requested, authority, now, location.days)
    )
    return Kit(
        name=account.name,
        roles=account.roles,
        broker=location.url,
        prefix=location.prefix,
        ca=authority.pem,
        broker_pin=bytes.fromhex(register.broker_pin),
        user=None if password is None else account.name,
        password=password,
        predict_group=register.predict_group if "predict" in account.roles else None,
        signing_public=authority.signing.public_key().public_bytes_raw(),
        sealing_public=authority.sealing.public_key().public_bytes_raw(),
        enrolment_public=authority.enrolment.public,
        **keys,
    )


def _own_keys(account: Account, authority: Authority, now: datetime, days: int) -> dict[str, Any]:
    """New private keys, with what vouches for them."""
    keys: dict[str, Any] = {}
    expires = authority.expiry(now, days)
    if account.serial is not None:
        issued = authority.issue_client(account.name, int(account.serial, 16), now, days)
        keys |= {"cert": issued.cert, "key": issued.key}
    if account.name == AGGREGATOR:
        keys["signing_private"] = authority.signing.private_bytes_raw()
        keys["sealing_private"] = authority.sealing.private_bytes_raw()
    elif voucher_roles(account.roles):
        sealing = X25519PrivateKey.generate()
        public = sealing.public_key().public_bytes_raw()
        keys["sealing_private"] = sealing.private_bytes_raw()
        keys["voucher"] = authority.enrolment.issue_voucher(account.name, public, account.roles, expires)
    if "train" in account.roles:
        member = authority.enrolment.issue_member(account.name, expires)
        keys |= {"member_private": member.private, "member_until": expires, "member_voucher": member.voucher}
    return keys


def _vouched_keys(
    account: Account, requested: RequestedKeys, authority: Authority, now: datetime, days: int
) -> dict[str, Any]:
    """What vouches for the public keys of a request, and nothing that is private."""
    assert account.serial is not None
    name, enrolment, expires = account.name, authority.enrolment, authority.expiry(now, days)
    cert = authority.certify_client(name, requested.tls_public, int(account.serial, 16), now, days)
    keys: dict[str, Any] = {"request": bytes.fromhex(requested.digest), "cert": cert}
    if voucher_roles(account.roles):
        keys["voucher"] = enrolment.issue_voucher(
            name, bytes.fromhex(requested.sealing), account.roles, expires
        )
    if "train" in account.roles:
        member = bytes.fromhex(requested.member)
        keys |= {
            "member_until": expires,
            "member_voucher": enrolment.issue_member_voucher(name, member, expires),
        }
    return keys
