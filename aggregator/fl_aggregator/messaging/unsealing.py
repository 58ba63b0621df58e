"""What comes in sealed (protocol, 9.10 ff.): opened, and refused where it is not from whom its topic says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fl_aggregator.messaging.translate import MessageRejected
from fl_shared.errors import CannotOpen, UserError
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channel, Channels
from fl_shared.protocol.codec import is_sealed

if TYPE_CHECKING:
    from fl_shared.security.kit import Kit


class Unsealer:
    """``kit``: the aggregator's, null where there are none. ``required``: what edges send must be sealed.

    Belongs to the loop's thread: opening is not for the network's, which everybody waits for.
    """

    def __init__(self, kit: Kit | None, *, required: bool, channels: Channels = CHANNELS) -> None:
        if required and kit is None:
            raise UserError("--require-sealed needs --kit: nothing could be opened without it")
        self._required = required
        self._channels = channels
        self._opener = None if kit is None else kit.opener()

    def unseal(self, topic: t.Topic, text: str, payload: bytes | memoryview) -> bytes | memoryview:
        """What a payload on ``topic``, which ``text`` spells, has to say. Raises ``MessageRejected``."""
        channel = self._channels.of(topic)
        account = t.OPERATOR if channel.sender == "operator" else getattr(topic, "client", None)
        if not is_sealed(payload):
            if self._must_be_sealed(channel):
                raise MessageRejected(
                    "not-sealed", f"topic: {text}: the message is not sealed, expected a sealed one", account
                )
            return payload
        if self._opener is None:
            raise MessageRejected(
                "not-opened", "the message is sealed, but this aggregator has no kit", account
            )
        if account is None:
            raise MessageRejected(
                "not-opened", f"topic: {text}: the message is sealed, but the topic has no account", None
            )
        try:
            return self._opener.open(account, text, payload)
        except CannotOpen as error:
            raise MessageRejected("not-opened", f"topic: {text}: {error}", account) from None

    def _must_be_sealed(self, channel: Channel) -> bool:
        """An operator has a kit whenever the aggregator has; presence says nothing that is not seen anyway."""
        required = self._opener is not None if channel.sender == "operator" else self._required
        return channel.sealable and required
