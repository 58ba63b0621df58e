"""Which messages are requests for an edge's log, and where the answers go (protocol, section 12)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from fl_edge.runtime.edge import Edge
from fl_edge.runtime.log_readers import LogReaders
from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.runtime.recent_lines import RecentLines
from fl_edge.runtime.remote_log import RemoteLog
from fl_edge.runtime.router import Router
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support.session_script import SessionScript

REQUEST = m.LogRequest(client="7", reader="r", level="info", recent=1, seconds=1)
TOPIC = "fl/clients/7/log-request"


class Wire:
    """A connection that remembers what was sent on it."""

    def __init__(self) -> None:
        self.sent: list[tuple[t.Topic, m.Message]] = []
        self.is_connected = True

    def send(self, topic: t.Topic, message: m.Message, **_: Any) -> None:
        self.sent.append((topic, message))


def sent_after(topic: str, payload: bytes, *, retain: bool = False, connected: bool = True) -> list[Any]:
    """What the edge 7 sends after this message."""
    nothing = cast(Any, None)
    member = MaskedMember("7", RunKeysFile(Path(), "7"))
    edge = Edge(SessionScript().state, Path(), member, nothing, nothing)
    wire = Wire()
    wire.is_connected = connected
    edge.connection = cast(Any, wire)
    readers = LogReaders(RecentLines(lambda _: True), allowed=True, sealer_for=None)
    told: list[object] = []
    router = Router(
        "fl", nothing, nothing, lambda *event: told.append(event), lambda: None, RemoteLog([edge], readers)
    )
    router.on_connection_event(edge, mqtt.Received(topic, payload, retain, 1), 0.0)
    assert told == [], "its session is told nothing"
    return wire.sent


def test_12_2_a_request_is_answered_on_the_edges_own_topic() -> None:
    answer = m.LogLines(client="7", reader="r")
    assert sent_after(TOPIC, codec.encode(REQUEST)) == [(t.LogTopic("7"), answer)]


@pytest.mark.parametrize(
    ("topic", "payload", "retain"),
    [
        pytest.param(TOPIC, codec.encode(REQUEST), True, id="12.1: a retained one is an old one"),
        pytest.param(TOPIC, b"", False, id="cleared"),
        pytest.param(TOPIC, b"\x00", False, id="unreadable"),
        pytest.param("fl/clients/8/log-request", codec.encode(REQUEST), False, id="of another edge"),
        pytest.param(
            TOPIC, codec.encode(REQUEST.model_copy(update={"client": "8"})), False, id="for another edge"
        ),
    ],
)
def test_12_1_nothing_else_is_answered(topic: str, payload: bytes, retain: bool) -> None:
    assert sent_after(topic, payload, retain=retain) == []


def test_without_a_connection_nothing_is_sent() -> None:
    assert sent_after(TOPIC, codec.encode(REQUEST), connected=False) == []
