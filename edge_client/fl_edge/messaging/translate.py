"""Turns messages into events of a session, except those on the topics of models (see `model_store`)."""

from __future__ import annotations

from fl_edge.session import events
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t


def event_of(
    client: str, topic: t.Topic, message: m.Message, *, retained: bool, now: float
) -> events.Event | None:
    """Returns what ``message`` on ``topic`` means to the session of ``client``; ``None`` if nothing.

    Raises ``codec.DecodeError`` if the message contradicts its topic.
    """
    match topic, message:
        case t.AggregatorTopic(), m.AggregatorPresence():
            return events.AggregatorSeen(now, message, retained)
        case t.PresenceTopic(client=topic_client), m.ClientPresence() if (
            topic_client == message.client == client
        ):
            return events.PresenceSeen(now, message)
        case t.RepliesTopic(client=topic_client), (
            m.Admitted() | m.Refused() | m.Grant() | m.Accepted() | m.Rejected() | m.Limited()
        ) as reply:
            return events.Replied(now, reply) if topic_client == reply.client == client else None
        case t.SelectedTopic(round=number), m.Selected():
            _check_round(number, message.round)
            return events.SelectionSeen(now, message)
        case t.WorkTopic(client=topic_client), m.Selected() if topic_client == client:
            return events.SelectionSeen(now, message, on_own_topic=True)
        case t.UnmaskTopic(client=topic_client), m.Closing() | m.Reveal() as asked if topic_client == client:
            return events.UnmaskingAsked(now, asked)
        case t.ResultTopic(round=number), m.Result():
            _check_round(number, message.round)
            return events.ResultSeen(now, message)
        case t.ModelTopic(), m.ModelAnnouncement():
            return events.ModelAnnounced(now, message)
        case _:
            return None


def event_of_cleared(client: str, topic: t.Topic, now: float) -> events.Event | None:
    """Returns what an empty payload on ``topic`` means to the session of ``client``; ``None`` if nothing."""
    match topic:
        case t.SelectedTopic(round=number):
            return events.SelectionCleared(now, number)
        case t.WorkTopic(client=topic_client) if topic_client == client:
            return events.SelectionCleared(now, None)
        case t.UnmaskTopic(client=topic_client) if topic_client == client:
            return events.UnmaskingCleared(now)
        case t.PresenceTopic(client=topic_client) if topic_client == client:
            return events.PresenceSeen(now, None)
        case _:
            return None


def _check_round(in_topic: int, in_payload: int) -> None:
    if in_topic != in_payload:
        raise codec.DecodeError(f"round: {in_payload}, but the topic has {in_topic}")
