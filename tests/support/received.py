"""What a test has received: messages in the order in which they came, and how a test waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol.channels import CHANNELS
from tests.support.wait import wait_until

M = TypeVar("M", bound=m.Message)

ANSWER_TIMEOUT = 30.0
"""Seconds that the broker has for an acknowledgement."""


@dataclass(frozen=True)
class Received:
    """A message as it came. ``at``: on the monotonic clock; ``prefix``: of the topics that are decoded."""

    at: float
    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None
    correlation: bytes | None
    prefix: str

    @cached_property
    def message(self) -> m.Message | None:
        """Null for what is no message of the protocol, and for an empty payload, which clears a retained message."""
        topic = CHANNELS.parse(self.prefix, self.topic)
        if topic is None or not self.payload:
            return None
        try:
            return codec.decode(topic, self.payload)
        except codec.DecodeError:
            return None

    def is_a(self, kind: type[m.Message], **members: Any) -> bool:
        """Whether it is a message of that kind with these members."""
        found = self.message
        return isinstance(found, kind) and all(
            getattr(found, name) == value for name, value in members.items()
        )


Wanted = Callable[[Received], Any]


class Inbox:
    """All messages that a client has received, in order, and those that its test has not taken.

    ``name``: of the client, for the text of an assertion.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._received: list[Received] = []
        self._pending: list[Received] = []
        self._actions: list[tuple[Wanted, Callable[[], None], threading.Event]] = []
        self._changed = threading.Condition()

    def _put(self, one: Received) -> None:
        """In the client's thread."""
        with self._changed:
            self._received.append(one)
            self._pending.append(one)
            self._changed.notify_all()
            due = [entry for entry in self._actions if entry[0](one)]
            self._actions = [entry for entry in self._actions if entry not in due]
        for _, action, done in due:
            action()
            done.set()

    @property
    def received(self) -> list[Received]:
        """All so far."""
        with self._changed:
            return list(self._received)

    @property
    def retained(self) -> dict[str, bytes]:
        """Those that the broker had retained, by topic."""
        return {one.topic: one.payload for one in self.received if one.retained}

    def all(self, kind: type[M], **members: Any) -> list[M]:
        """All messages of that kind with these members so far."""
        return [one.message for one in self.received if one.is_a(kind, **members)]  # type: ignore[misc]

    def times(self, kind: type[m.Message], **members: Any) -> list[float]:
        return [one.at for one in self.received if one.is_a(kind, **members)]

    def wait_for(
        self, wanted: Wanted, what: str = "a message", *, timeout: float = ANSWER_TIMEOUT, since: int = 0
    ) -> Received:
        """The first of all received messages, from number ``since`` on, for which ``wanted`` is true.

        Each is looked at once, however many come.
        """
        looked_at = since

        def first() -> Received | None:
            nonlocal looked_at
            while looked_at < len(self._received):
                looked_at += 1
                if wanted(one := self._received[looked_at - 1]):
                    return one
            return None

        found = wait_until(first, timeout, f"{self.name} receives {what}", changed=self._changed)
        assert found is not None
        return found

    def wait_for_message(
        self, kind: type[M], timeout: float = 30.0, *, after: float = 0.0, **members: Any
    ) -> M:
        """The first message of that kind with these members that came later than ``after``."""
        found = self.wait_for(
            lambda one: one.at > after and one.is_a(kind, **members),
            f"a {kind.__name__} with {members}",
            timeout=timeout,
        )
        return found.message  # type: ignore[return-value]

    def take(
        self, wanted: Wanted = lambda _: True, what: str = "a message", *, timeout: float = ANSWER_TIMEOUT
    ) -> Received:
        """The first message for which ``wanted`` is true and that was not taken before."""

        def first() -> Received | None:
            for index, one in enumerate(self._pending):
                if wanted(one):
                    return self._pending.pop(index)
            return None

        try:
            found = wait_until(first, timeout, what, changed=self._changed)
        except AssertionError as error:
            pending = [type(one.message).__name__ for one in self.pending]
            raise AssertionError(f"{error}; there were {pending}") from None
        assert found is not None
        return found

    @property
    def pending(self) -> list[Received]:
        """All that were not taken."""
        with self._changed:
            return list(self._pending)

    def take_all(self, kind: type[m.Message] | None = None) -> list[Received]:
        """All that were not taken, or those of them that are of that kind."""
        with self._changed:
            taken = [one for one in self._pending if kind is None or one.is_a(kind)]
            self._pending = [one for one in self._pending if one not in taken]
        return taken

    def expect(self, kind: type[M], timeout: float = 20.0, **members: Any) -> M:
        """Takes the first message of that kind with these members."""
        return self.expect_received(kind, timeout, **members).message  # type: ignore[return-value]

    def expect_received(self, kind: type[m.Message], timeout: float = 20.0, **members: Any) -> Received:
        return self.take(
            lambda one: one.is_a(kind, **members), f"a {kind.__name__} with {members}", timeout=timeout
        )

    def expect_silence(self, kind: type[m.Message], seconds: float) -> None:
        """No message of that kind waits to be taken, nor comes within so many seconds."""
        with self._changed:
            came = self._changed.wait_for(lambda: any(one.is_a(kind) for one in self._pending), seconds)
        assert not came, [one.message for one in self.pending if one.is_a(kind)]

    def when(self, wanted: Wanted, action: Callable[[], None]) -> threading.Event:
        """Calls ``action`` as soon as such a message comes, and then sets the event.

        This client receives nothing else meanwhile.
        """
        done = threading.Event()
        with self._changed:
            self._actions.append((wanted, action, done))
        return done

    def when_message(
        self, action: Callable[[], None], kind: type[m.Message], **members: Any
    ) -> threading.Event:
        return self.when(lambda one: one.is_a(kind, **members), action)
