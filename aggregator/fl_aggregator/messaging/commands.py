"""Who is answered when the operator sends a command, and the answer as a message."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource


@dataclass(frozen=True, slots=True)
class AnswerAddress:
    """The Response Topic of a command, and its Correlation Data."""

    topic: t.AnswersTopic
    correlation: bytes | None


def addressed(event: on.Event, to: AnswerAddress | None) -> on.Event:
    """Returns the event of a command with the address of its answer; other events as they are."""
    if isinstance(event, on.StopRequested | on.PauseRequested | on.UnpauseRequested):
        return replace(event, answer_to=to)
    return event


def refusal(to: AnswerAddress | None, detail: str) -> do.Answer | None:
    """Returns the answer to a command that was dropped; null if nobody is to be answered."""
    return None if to is None else do.Answer(to, None, accepted=False, detail=detail)


def answer_message(effect: do.Answer, scope: EnvelopeSource) -> m.CommandAnswer:
    """Returns the message that an answer is sent as."""
    return m.CommandAnswer(
        **scope.envelope(), command=effect.command, accepted=effect.accepted, detail=effect.detail[:1000]
    )
