"""Every error of this package that a caller may want to tell apart.

A program ends with the ``exit_code`` of the `ProgramError` that reaches its outermost function, and prints
its text: it is written for the person at the terminal.
"""

from __future__ import annotations

from typing import ClassVar, Final

INTERRUPTED: Final = 130
"""The exit code of a program that was asked to end: 128 and the number of SIGINT, as of a shell's."""


class ProgramError(Exception):
    """Ends the program. ``str(error)`` says what happened, and what to do about it where we know."""

    exit_code: ClassVar[int] = 1


class RunFailed(ProgramError):
    """The run could not be brought to its end, and it is not the settings' fault."""

    exit_code: ClassVar[int] = 1


class UserError(ProgramError):
    """The person who started the program can put it right: a setting, a missing file or program."""

    exit_code: ClassVar[int] = 2


class BrokerUnreachable(UserError):
    """No connection within the time given. The connection goes on trying until it is closed."""


class BrokerRefused(UserError):
    """The broker's answer to CONNECT is a refusal that stays (user, password, client id)."""


class ServerRequiresTls(ConnectionError):
    """What was asked without TLS answers with TLS."""


class WebSocketRefused(ConnectionError):
    """The other side makes no WebSocket of it. ``status`` is that of HTTP, null if it did not speak HTTP."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class BadSignature(Exception):
    """A message is not signed, or not by whom it must be. The text says what was expected."""


class CannotOpen(Exception):
    """It was sealed for another key, by somebody else, or under another topic; or it was changed."""


class QueueFull(Exception):
    """As much is waiting to be sent as the connection's settings allow; the message was not taken."""


class MessageTooLarge(Exception):
    """The packet would be larger than the broker announced to accept; sending it would cost the connection.

    ``size`` and ``limit`` are bytes of the whole MQTT packet.
    """

    def __init__(self, topic: str, size: int, limit: int) -> None:
        super().__init__(
            f"a message of {size} bytes on {topic!r}: the broker accepts packets of at most {limit} bytes "
            "(max_packet_size in mosquitto.conf)"
        )
        self.topic = topic
        self.size = size
        self.limit = limit
