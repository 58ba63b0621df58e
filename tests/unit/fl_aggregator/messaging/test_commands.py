"""The operator's commands, and who is answered (protocol, 8.5 and 8.13)."""

from __future__ import annotations

from typing import cast

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.commands import AnswerAddress, answer_message
from fl_aggregator.messaging.connections import Connections
from fl_aggregator.messaging.inbox import AdmittedMessage, Inbox
from fl_aggregator.messaging.rate_limiter import RateLimiter
from fl_aggregator.messaging.reader import EMPTY_INBOUND, Inbound
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.messaging.router import Router
from fl_aggregator.messaging.unsealing import Unsealer
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import step
from fl_aggregator.round.state import Run, new_run
from fl_aggregator.storage.journal import event_fields
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.network import Network
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from tests.support.recording_connections import RecordingNetwork

SCOPE = EnvelopeSource("run-1", 2)
ADDRESS = AnswerAddress(t.AnswersTopic("me"), b"17")
FRESH = new_run(Settings(task="digits"))


def read(payload: bytes | m.Message, *, to: str | None = "fl/answers/me", retain: bool = False) -> Inbound:
    """What the aggregator, which has no kit, makes of a message on ``fl/control``."""
    limiter = RateLimiter("fl", 3, 100, lambda: FRESH.roster)
    network = cast(Network, RecordingNetwork())
    access = BrokerAccess(BrokerAddress.parse("mqtt://localhost"))
    connections = Connections(network, access, FRESH.settings, SCOPE, Inbox(limiter.admit))
    router = Router(connections, Rejections(), Unsealer(None, required=False), SCOPE, limiter)
    encoded = payload if isinstance(payload, bytes) else codec.encode(payload)
    received = mqtt.Received("fl/control", encoded, retain, 1, to, None if to is None else b"17")
    return router.read(AdmittedMessage(t.ControlTopic(), received), FRESH, 5.0)


def answers(state: Run, event: on.Event) -> list[do.Answer]:
    return [effect for effect in step(state, event)[1] if isinstance(effect, do.Answer)]


@pytest.mark.parametrize(
    ("command", "event"),
    [
        (m.Stop(run="run-1", reason="lunch"), on.StopRequested(now=5.0, reason="stopped by the operator: lunch")),
        (m.Pause(run="run-1", number=3), on.PauseRequested(now=5.0, reason="by the operator", number=3)),
        (m.Resume(run="run-1", incarnation=2), on.UnpauseRequested(now=5.0)),
    ],
)  # fmt: skip
def test_a_command_becomes_an_event_that_knows_who_is_answered(command: m.Command, event: on.Event) -> None:
    inbound = read(command)
    assert inbound.event == event
    assert isinstance(inbound.event, on.StopRequested | on.PauseRequested | on.UnpauseRequested)
    assert inbound.event.answer_to == ADDRESS
    assert inbound.reply is None


@pytest.mark.parametrize(
    "to", [None, "fl/answers", "fl/answers/a/b", "fl/status", "other/answers/me", "fl/answers/a b"]
)
def test_only_a_topic_for_answers_is_answered(to: str | None) -> None:
    inbound = read(m.Pause(run="run-1"), to=to)
    assert isinstance(inbound.event, on.PauseRequested)
    assert inbound.event.answer_to is None
    assert not answers(FRESH, inbound.event)
    assert step(FRESH, inbound.event)[0].paused, "it is obeyed all the same"


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (m.Pause(run="another"), "run: 'another', expected 'run-1'"),
        (m.Stop(run="run-1", incarnation=1), "incarnation: 1, expected 2"),
        (b'{"v":2,"kind":"start","run":"run-1"}', "kind"),
        (b'{"v":1,"kind":"stop","run":"run-1"}', "version 1, expected 2"),
        (b"\xc1\x01", "no kit"),
        (b"?", "JSON"),
    ],
)
def test_what_is_not_obeyed_is_answered_with_the_reason(payload: bytes | m.Message, said: str) -> None:
    inbound = read(payload)
    assert inbound.event is None
    assert isinstance(inbound.reply, do.Answer)
    assert (inbound.reply.to, inbound.reply.accepted) == (ADDRESS, False)
    assert said in inbound.reply.detail
    assert read(payload, to=None) is EMPTY_INBOUND


def test_a_retained_command_is_neither_obeyed_nor_answered() -> None:
    assert read(m.Pause(run="run-1"), retain=True) is EMPTY_INBOUND


def test_an_answer_as_a_message() -> None:
    event = read(m.Pause(run="run-1", reason="lunch")).event
    assert event is not None
    (answer,) = answers(FRESH, event)
    message = answer_message(answer, EnvelopeSource("run-1", 2))
    assert (message.command, message.accepted) == ("pause", True)
    assert message.detail == "paused by the operator: lunch"
    assert (message.run, message.incarnation) == ("run-1", 2)


def test_the_journal_does_not_say_who_is_answered() -> None:
    event = read(m.Pause(run="run-1")).event
    assert event is not None
    assert event_fields(event) == {
        "event": "PauseRequested", "now": 5.0, "reason": "by the operator", "number": None,
    }  # fmt: skip
