"""Opens sealed messages (protocol, 9.10 ff.), and rejects what another account, or one without the role, has sealed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from fl_aggregator.messaging.translate import MessageRejected
from fl_shared.errors import CannotOpen, UserError
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channel, Channels
from fl_shared.protocol.codec import is_sealed

if TYPE_CHECKING:
    from fl_aggregator.configuration.settings import Settings
    from fl_shared.security.kit import Kit
    from fl_shared.security.vouchers import Voucher


EntitlementReason = Literal["kit-expired", "kit-revoked", "wrong-role"]


class NotEntitled(MessageRejected):
    """An account's kit is revoked or has expired, or its voucher does not include what the account has sent."""

    def __init__(self, reason: EntitlementReason, detail: str, client: str | None) -> None:
        super().__init__(reason, detail, client)
        self.refusal_reason = reason


class Unsealed(NamedTuple):
    """The content of a message. ``voucher``: of the account that sealed it, null if it is not sealed."""

    content: bytes | memoryview
    voucher: Voucher | None


class Unsealer:
    """Opens sealed messages on the loop's thread, since the network's thread must not be delayed.

    ``kit`` is the aggregator's, or null if it has none. ``required``: whether messages from edges must be
    sealed. Raises ``UserError`` if that is required without a kit.
    """

    def __init__(self, kit: Kit | None, *, required: bool, channels: Channels = CHANNELS) -> None:
        if required and kit is None:
            raise UserError("--require-sealed needs --kit: nothing could be opened without it")
        self._required = required
        self._channels = channels
        self._opener = None if kit is None else kit.opener()

    @classmethod
    def of(cls, kit: Kit | None, settings: Settings) -> Self:
        """Makes the one of a run with these settings. Raises ``UserError`` if they need a kit."""
        return cls(kit, required=settings.sealing_required(certified=kit is not None))

    def unseal(self, topic: t.Topic, topic_text: str, payload: bytes | memoryview) -> Unsealed:
        """Returns the content of a payload on ``topic``, sealed or not; ``topic_text`` is the same topic as text.

        Raises ``MessageRejected`` if it cannot be opened, or should be sealed and is not.
        """
        channel = self._channels.of(topic)
        client = getattr(topic, "client", None)
        account = t.OPERATOR if channel.sender == "operator" else client
        if not is_sealed(payload):
            if self._must_be_sealed(channel):
                raise MessageRejected(
                    "not-sealed",
                    f"topic: {topic_text}: the message is not sealed, expected a sealed one",
                    client,
                )
            return Unsealed(payload, None)
        if self._opener is None:
            raise MessageRejected(
                "not-opened", "the message is sealed, but this aggregator has no kit", client
            )
        if account is None:
            raise MessageRejected(
                "not-opened",
                f"topic: {topic_text}: the message is sealed, but the topic has no account",
                None,
            )
        try:
            return Unsealed(*self._opener.open(account, topic_text, payload))
        except CannotOpen as error:
            raise MessageRejected("not-opened", f"topic: {topic_text}: {error}", client) from None

    def _must_be_sealed(self, channel: Channel) -> bool:
        """Whether messages on a channel must be sealed.

        The operator has a kit whenever the aggregator has one. Presence need not be sealed: it reveals
        nothing that cannot be seen anyway.
        """
        required = self._opener is not None if channel.sender == "operator" else self._required
        return channel.sealable and required


def check_account(voucher: Voucher, channel: Channel) -> None:
    """Raises `NotEntitled` if the voucher has expired, or none of its roles may send on ``channel``."""
    if voucher.has_expired(time.time()):
        raise NotEntitled(
            "kit-expired",
            f"the kit of {voucher.account!r} expired on {voucher.expiry_date}, expected a new one: "
            "fl-aggregator provision rotate",
            voucher.account,
        )
    allowed = ("operator",) if channel.sender == "operator" else channel.roles
    if voucher.roles.isdisjoint(allowed):
        raise _wrong_role(voucher, f"topic: {t.first_level(channel.topic)}")


def check_claims(voucher: Voucher, message: m.Message) -> None:
    """Raises `NotEntitled` if a message claims a role that the voucher does not have."""
    match message:
        case m.Registration(roles=roles) if not voucher.roles.issuperset(roles):
            raise _wrong_role(voucher, f"roles: {', '.join(roles)}")
        case m.Registration(edges=int(edges)) if "region" not in voucher.roles:
            raise _wrong_role(voucher, f"edges: {edges}, as of a regional aggregator")
        case m.Evaluation(split=split):
            if ("evaluate" if split == "test" else "train") not in voucher.roles:
                raise _wrong_role(voucher, f"split: {split}")


def _wrong_role(voucher: Voucher, claim: str) -> NotEntitled:
    roles = " and ".join(sorted(voucher.roles))
    return NotEntitled(
        "wrong-role", f"{claim}, but the kit of {voucher.account!r} is only for {roles}", voucher.account
    )
