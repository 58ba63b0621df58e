"""Decodes received messages after checking their signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fl_shared.errors import BadSignature
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol.channels import CHANNELS

if TYPE_CHECKING:
    from fl_shared.security.signatures import Verifier


def decode_verified(prefix: str, received: mqtt.Received, verifier: Verifier | None) -> m.Message | None:
    """The message that was received, or None if it is not valid or not on a topic of the protocol.

    With a ``verifier``, a message without a valid signature of the aggregator gives None, too. That needs no
    report: the aggregator itself repairs such messages.
    """
    topic = CHANNELS.parse(prefix, received.topic)
    if topic is None:
        return None
    try:
        if verifier is not None:
            verifier.check(received.topic, received.payload)
        return codec.decode(topic, received.payload)
    except (codec.DecodeError, BadSignature):
        return None
