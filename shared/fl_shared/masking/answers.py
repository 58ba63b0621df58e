"""What a member checks before it signs a closing or opens its shares.

It signs one closing a round, for ever. The caller keeps the record of that, since nothing is stored here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fl_shared.masking.plan import CLOSING, Member, Plan
from fl_shared.masking.run_keys import RunKeys, is_signature
from fl_shared.masking.shares import SALT, open_package, package_size, pair_secret, share_key
from fl_shared.protocol.kinds.masked import SEED

Reason = Literal["too-small", "not-a-member", "wrong-plan", "wrong-signatures"]
"""Those of `Declined` in messages that are found here."""


class Declined(Exception):
    """The member does not sign, or opens nothing."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason


class NamedSet(Protocol):
    """A set of updates of a round, as `Closing` and `Reveal` name it: ``included`` has the body of each client."""

    @property
    def round(self) -> int:
        """The number of the round."""

    @property
    def plan(self) -> str:
        """The digest of the round's plan, hex."""

    @property
    def included(self) -> Mapping[str, str]:
        """The bodies, hex, by client."""


@dataclass(frozen=True, slots=True)
class OpenedShares:
    """The shares of a member, 16 bytes each.

    For each client of the set, ascending: that of its own seed, then those of its seeds with all members that are not
    in the set, ascending. Those of ``unopened`` clients, whose packages cannot be opened, are zeros.
    """

    shares: bytes = field(repr=False)
    unopened: tuple[str, ...]


def sign_closing(plan: Plan, client: str, keys: RunKeys, closing: NamedSet) -> bytes:
    """The signature, 64 bytes, of the set by a member. Raises `Declined`."""
    return keys.agree.sign(CLOSING + _checked(plan, client, keys, closing))


def open_shares(
    plan: Plan,
    client: str,
    keys: RunKeys,
    reveal: NamedSet,
    signatures: Mapping[str, bytes],
    packages: Mapping[str, bytes],
) -> OpenedShares:
    """The shares that open the sum over the set, if enough members have signed it. Raises `Declined`.

    ``signatures``: by member. ``packages``: for each client of the set, its salt and its package for this member.
    """
    digest = _checked(plan, client, keys, reveal)
    found = signers(plan, digest, signatures)
    if len(found) < plan.threshold:
        raise Declined("wrong-signatures", f"{len(found)} valid signatures, expected {plan.threshold}")
    count = len(plan.members)
    lost = [index for index, other in enumerate(plan.clients) if other not in reveal.included]
    shares, unopened = [], []
    for sender, body in sorted(reveal.included.items()):
        member = plan.members[plan.index(sender)]
        given = packages.get(sender, b"")
        salt, package = given[:SALT], given[SALT:]
        key = share_key(pair_secret(plan.digest, client, keys.mask, member), salt, sender, client)
        content = open_package(key, plan.digest, bytes.fromhex(body), package)
        if content is None or len(package) != package_size(count):
            unopened.append(sender)
            content = bytes(SEED * count)
        # Its own seed, and those with who is not in the set: never both masks of one client.
        shares += [content[SEED * index : SEED * (index + 1)] for index in (plan.index(sender), *lost)]
    return OpenedShares(b"".join(shares), tuple(unopened))


def signers(plan: Plan, closing: bytes, signatures: Mapping[str, bytes]) -> frozenset[str]:
    """Those members whose signatures of this closing digest are valid."""
    return frozenset(
        member.client
        for member in plan.members
        if member.client in signatures
        and is_signature(member.agree, signatures[member.client], CLOSING + closing)
    )


def _checked(plan: Plan, client: str, keys: RunKeys, named: NamedSet) -> bytes:
    """The closing digest of the set. Raises `Declined` for one that no member may agree to."""
    if named.round != plan.round or named.plan != plan.digest.hex():
        raise Declined(
            "wrong-plan",
            f"round {named.round} with plan {named.plan[:12]}, "
            f"expected round {plan.round} with plan {plan.digest.hex()[:12]}",
        )
    if Member(client, keys.public.mask, keys.public.agree) not in plan.members:
        raise Declined(
            "not-a-member", f"{client} is no member of round {plan.round} with its keys of this run"
        )
    if strangers := sorted(named.included.keys() - set(plan.clients)):
        raise Declined("not-a-member", f"{strangers[0]} is in the set, but no member of round {plan.round}")
    if len(named.included) < plan.least:
        raise Declined("too-small", f"{len(named.included)} updates, expected at least {plan.least}")
    return plan.closing(named.included)
