"""Sends a command to a run as its operator, on ``fl/control``, and waits for the answer (protocol, 8.5 and 8.13)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeVar

from pydantic import ValidationError

from fl_aggregator.tools.remote.observer import Observer
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed, UserError
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.limits import BIRTH_WAIT, STATUS_WAIT

REPEAT_INTERVAL: Final = 2.0
"""Seconds until a command is repeated, since nobody has answered it."""

CommandT = TypeVar("CommandT", bound=m.Command)


def pause(broker: BrokerAccess, requested_run: str | None, reason: str, timeout: float) -> str:
    """Pauses the run that is online under the prefix, and returns the answer as one line.

    ``requested_run``: the only run that may be paused, null for any. Raises ``UserError`` if that run is not online or
    the aggregator does not obey, ``RunFailed`` if nobody has answered within ``timeout`` seconds, or says how
    often the run has been paused: by its number, a copy of the message does not pause the run again later.
    """
    pause = checked(m.Pause, requested_run, reason)
    with Commander(broker) as commander:
        status = commander.status_of(commander.find_run(requested_run), timeout)
        number = status.pauses + (not status.held)
        return commander.ask(pause.model_copy(update={"run": status.run, "number": number}), timeout)


def resume(broker: BrokerAccess, requested_run: str | None, timeout: float) -> str:
    """Ends the pause of the run that is online under the prefix; see `pause`."""
    resume = checked(m.Resume, requested_run, "")
    with Commander(broker) as commander:
        status = commander.status_of(commander.find_run(requested_run), timeout)
        return commander.ask(resume.model_copy(update={"run": status.run, "number": status.pauses}), timeout)


def checked(kind: Callable[..., CommandT], requested_run: str | None, reason: str) -> CommandT:
    """A command with the options of its user. Raises ``UserError`` if one of them is not valid."""
    try:
        return kind(run=requested_run or "any", reason=reason)
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("run",):
            raise UserError(
                f"--run {requested_run!r}: expected 1 to 64 characters of A-Z a-z 0-9 _ -"
            ) from None
        raise UserError(
            f"--reason: {len(reason)} characters, expected at most 200 without control characters"
        ) from None


class Commander(Observer):
    """Finds the run that is online, and sends it commands, sealed if there is a kit."""

    def __init__(self, broker: BrokerAccess) -> None:
        super().__init__(broker, m.CommandAnswer)
        if broker.kit is not None:
            broker.kit.check_voucher(datetime.now(UTC))
        self._sealer = None if broker.kit is None else broker.kit.sealer()
        self._correlation = secrets.token_bytes(8)
        self._answers = t.build(self.prefix, t.AnswersTopic(secrets.token_hex(8)))
        self.topic = t.build(self.prefix, t.ControlTopic())
        self.answer: m.CommandAnswer | None = None
        """The newest answer to our commands."""

    def find_run(self, requested_run: str | None) -> str:
        """The name of the run that is online. Raises ``UserError`` if none is, or if it is not ``requested_run``."""
        self.wait_until_subscribed()
        self.wait_for(self._is_known, BIRTH_WAIT)
        presence = self.born
        if presence is None or presence.state == "offline":
            raise UserError(self.absence_text)
        if requested_run not in (None, presence.run):
            raise UserError(f"--run {requested_run}: the run that is online {self.where} is {presence.run}")
        return presence.run

    def status_of(self, run: str, timeout: float) -> m.Status:
        """The status of ``run``, which is retained, and comes again if the broker has lost it. Raises ``RunFailed``."""
        wait = min(timeout, STATUS_WAIT)
        self.wait_for(lambda: self.status is not None and self.status.run == run, wait)
        if self.status is None or self.status.run != run:
            raise self.failure(run, f"answered within {wait:g} s")
        return self.status

    def _is_known(self) -> bool:
        born, status = self.born, self.status
        return born is not None and status is not None and status.run == born.run

    def send(self, command: m.Command) -> None:
        """Sends ``command`` once, to the present incarnation: a copy of it must not change the run after a resume."""
        incarnation = None if self.born is None else self.born.incarnation
        payload = codec.encode(command.model_copy(update={"incarnation": incarnation}))
        self.publish(
            self.topic,
            payload if self._sealer is None else self._sealer.seal(self.topic, payload),
            response_topic=self._answers,
            correlation_data=self._correlation,
        )

    def on_message(self, message: m.Message, received: mqtt.Received) -> None:
        """See `Observer.on_message`. An answer from an incarnation before the present one says nothing."""
        super().on_message(message, received)
        is_ours = received.topic == self._answers and received.correlation_data == self._correlation
        if isinstance(message, m.CommandAnswer) and is_ours and self._is_from_present(message):
            self.answer = message

    def _is_from_present(self, answer: m.CommandAnswer) -> bool:
        born = self.born
        return born is None or (answer.run, answer.incarnation) == (born.run, born.incarnation)

    def ask(self, command: m.Command, timeout: float) -> str:
        """Sends ``command`` until it is answered, and returns the answer as one line."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self.send(command)
            if self.wait_for(lambda: self.answer is not None, min(REPEAT_INTERVAL, left)):
                return self.accepted_text()
        raise self.failure(command.run, f"answered within {timeout:g} s")

    def failure(self, run: str, what: str) -> RunFailed:
        """What to raise since ``run`` has not done ``what`` the command says."""
        return RunFailed(
            f"run {run} has not {what}: is its aggregator still running, and may this account write to {self.topic}?"
        )

    def accepted_text(self) -> str:
        """The answer as one line. Raises ``UserError`` if the aggregator does not obey."""
        assert self.answer is not None
        if not self.answer.accepted:
            raise UserError(f"run {self.answer.run} refused the command: {self.answer.detail}")
        return f"run {self.answer.run}: {self.answer.detail}"
