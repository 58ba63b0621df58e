"""Opens sealed messages (protocol, 9.10 ff.), and rejects those that another account has sealed."""

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

    def unseal(self, topic: t.Topic, topic_text: str, payload: bytes | memoryview) -> bytes | memoryview:
        """Returns the content of a payload on ``topic``, sealed or not; ``topic_text`` is the same topic as text.

        Raises ``MessageRejected`` if it cannot be opened, or should be sealed and is not.
        """
        channel = self._channels.of(topic)
        account = t.OPERATOR if channel.sender == "operator" else getattr(topic, "client", None)
        if not is_sealed(payload):
            if self._must_be_sealed(channel):
                raise MessageRejected(
                    "not-sealed",
                    f"topic: {topic_text}: the message is not sealed, expected a sealed one",
                    account,
                )
            return payload
        if self._opener is None:
            raise MessageRejected(
                "not-opened", "the message is sealed, but this aggregator has no kit", account
            )
        if account is None:
            raise MessageRejected(
                "not-opened",
                f"topic: {topic_text}: the message is sealed, but the topic has no account",
                None,
            )
        try:
            return self._opener.open(account, topic_text, payload)
        except CannotOpen as error:
            raise MessageRejected("not-opened", f"topic: {topic_text}: {error}", account) from None

    def _must_be_sealed(self, channel: Channel) -> bool:
        """Whether messages on a channel must be sealed.

        The operator has a kit whenever the aggregator has one. Presence need not be sealed: it reveals
        nothing that cannot be seen anyway.
        """
        required = self._opener is not None if channel.sender == "operator" else self._required
        return channel.sealable and required
