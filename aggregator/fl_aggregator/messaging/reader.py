"""Turns decoded messages into events: checks their scope, keeps count of what is dropped and of delays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fl_aggregator.messaging import translate
from fl_aggregator.messaging.delays import Delays
from fl_aggregator.messaging.ended_sessions import EndedSessions
from fl_aggregator.messaging.masked_answers import MaskedAnswers
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.messaging.revoked_kits import RevokedKits
from fl_aggregator.messaging.translate import MessageRejected
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.state import Run
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource


@dataclass(frozen=True, slots=True)
class Inbound:
    """What a message means; all null if it was dropped.

    ``event`` is what happened, ``chunk`` a piece of an update, ``reply`` an answer to send.
    """

    event: on.Event | None = None
    chunk: m.UpdateChunk | None = None
    reply: do.SendReply | do.Answer | None = None


EMPTY_INBOUND: Final = Inbound()


class MessageReader:
    """Reads messages to the aggregator, on the loop's thread."""

    def __init__(
        self,
        rejections: Rejections,
        scope: EnvelopeSource,
        enrolment: bytes | None = None,
        revoked: RevokedKits | None = None,
    ) -> None:
        """``enrolment``, ``revoked``: see `MaskedAnswers`."""
        self.delays = Delays()
        self.answers = MaskedAnswers(enrolment, revoked)
        self._rejections = rejections
        self._scope = scope
        self._ended_sessions = EndedSessions()

    def read(self, topic: t.Topic, message: m.Message, size: int, state: Run, now: float) -> Inbound:
        """Returns what a message means; ``size`` is the bytes of its payload, ``now`` run time in seconds."""
        try:
            event = translate.event_from(topic, message, self._scope, now, size)
            if isinstance(message, m.Agreed | m.Opened | m.Declined):
                event = self.answers.event(message, state, now)
        except MessageRejected as error:
            return self.drop(state, error.client, error.reason, str(error))
        if isinstance(message, m.Delayed):
            client_state = state.roster.get(message.client)
            if client_state is not None and client_state.session == message.session:
                self.delays.add(message, getattr(state.phase, "round", None))
            return EMPTY_INBOUND
        match event:
            case on.EdgeLost(client=name, session=session):
                self._ended_sessions.add(name, session, now)
            case on.Registered(client=name, session=session):
                if self._ended_sessions.has_ended(name, session, now):
                    # It would count as present for ever. If it is online after all, it repeats its registration.
                    return EMPTY_INBOUND
                if isinstance(message, m.Registration) and state.settings.masked:
                    refusal = self.answers.refusal(message, self._scope.run)
                    if refusal is not None:
                        return Inbound(reply=refusal)
            case _:
                pass
        return Inbound(event, message if isinstance(message, m.UpdateChunk) else None)

    def drop(self, state: Run, client: str | None, reason: str, detail: str) -> Inbound:
        """Counts a message that is dropped; ``detail`` names the field, its value and what was expected."""
        self._rejections.count(client, reason, detail, known=client in state.roster)
        return EMPTY_INBOUND
