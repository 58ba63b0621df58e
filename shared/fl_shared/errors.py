"""Every error of this package that a caller may want to tell apart.

A program ends with the ``exit_code`` of the `ProgramError` that reaches its outermost function, and prints
the error's text, which is written for the person at the terminal.
"""

from __future__ import annotations

from typing import ClassVar, Final

INTERRUPTED: Final = 130
"""The exit code of a program that was asked to end: 128 plus the number of SIGINT, as in a shell."""


class ProgramError(Exception):
    """An error that ends the program. ``str(error)`` says what happened and, if we know, what to do."""

    exit_code: ClassVar[int] = 1


class RunFailed(ProgramError):
    """The run could not be completed, and the settings are not the reason."""

    exit_code: ClassVar[int] = 1


class UserError(ProgramError):
    """The person who started the program can correct the mistake: a setting, a missing file or program."""

    exit_code: ClassVar[int] = 2


class BrokerUnreachable(UserError):
    """There was no connection within the given time. The connection keeps trying until it is closed."""


class BrokerRefused(UserError):
    """The broker refused CONNECT, and would refuse it again (user, password, client id)."""


class ServerRequiresTls(ConnectionError):
    """A server that we contacted without TLS answered with TLS."""


class WrongBrokerKey(ConnectionError):
    """A server has a certificate of the right authority, but not the key that the kit expects."""


class WebSocketRefused(ConnectionError):
    """The server opened no WebSocket. ``status`` is its HTTP status, None if it did not answer in HTTP."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class BadSignature(Exception):
    """A message has no signature, or not the aggregator's. The text says what was expected."""


class CannotOpen(Exception):
    """A sealed message cannot be opened: another key, sender or topic, or its bytes were changed."""


class QueueFull(Exception):
    """The connection's queue is as full as its settings allow; the message was not queued."""


class MessageTooLarge(Exception):
    """The packet would be larger than the broker accepts, which would make it close the connection.

    ``size`` and ``limit`` are in bytes, of the whole MQTT packet.
    """

    def __init__(self, topic: str, size: int, limit: int) -> None:
        super().__init__(
            f"a message of {size} bytes on {topic!r}: the broker accepts packets of at most {limit} bytes "
            "(max_packet_size in mosquitto.conf)"
        )
        self.topic = topic
        self.size = size
        self.limit = limit
