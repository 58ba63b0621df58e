"""A table of channels with three new messages: one from edges, a reply, and one to edges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import (
    CHANNELS,
    ROWS,
    Channel,
    Channels,
)
from tests.support.observation_samples import RUN


class Ping(m.Scoped):
    """``fl/pings/<client>``: an edge asks whether it is heard."""

    kind: Literal["ping"] = "ping"
    client: m.ClientId


class Pong(m.Reply):
    """The aggregator's reply to a ping."""

    kind: Literal["pong"] = "pong"


class Notice(m.Scoped):
    """``fl/notices/<client>``, retained: the aggregator tells an edge something."""

    kind: Literal["notice"] = "notice"


@dataclass(frozen=True, slots=True)
class PingsTopic(t.Topic):
    """``fl/pings/<client>``"""

    PATTERN: ClassVar[str] = "pings/{client}"
    client: str


@dataclass(frozen=True, slots=True)
class NoticesTopic(t.Topic):
    """``fl/notices/<client>``"""

    PATTERN: ClassVar[str] = "notices/{client}"
    client: str


PINGS = Channel(PingsTopic, (Ping,), "edge", ("aggregator",), limit="other", answers=(Pong,))
NOTICES = Channel(NoticesTopic, (Notice,), "aggregator", ("edge",), retained=True, roles=("train",))
EXTENDED = Channels(
    [
        *(replace(row, kinds=(*row.kinds, Pong)) if row.topic is t.RepliesTopic else row for row in ROWS),
        PINGS,
        NOTICES,
    ],
    {*CHANNELS.kinds, Ping, Pong, Notice},
    {*(row.topic for row in ROWS), PingsTopic, NoticesTopic},
)
PING = Ping(run=RUN, incarnation=1, seq=1, client="7")
PONG = Pong(run=RUN, incarnation=1, seq=1, client="7", session="s")
NOTICE = Notice(run=RUN, incarnation=1, seq=1)
NEW = [(PingsTopic("7"), PING), (t.RepliesTopic("7"), PONG), (NoticesTopic("7"), NOTICE)]
