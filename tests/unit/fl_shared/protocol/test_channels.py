"""The table of channels: the policy that it states, the mistakes that it finds, and who has to know every kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from fl_aggregator.messaging.translate import event_from
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import (
    CHANNELS,
    ROWS,
    Channel,
    Channels,
    declared_kinds,
    declared_topics,
)
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.transfer.publication import ModelDataTopic
from tests.support.extended_channels import (
    EXTENDED,
    NOTICES,
    Notice,
    Ping,
    Pong,
)
from tests.support.observation_samples import RUN
from tests.support.samples import MESSAGES

ROOT = Path(__file__).parents[4]


def topics_of(rows: object) -> set[str]:
    assert isinstance(rows, list | tuple)
    return {row.topic.__name__.removesuffix("Topic").lower() for row in rows}


# --- what the table says ------------------------------------------------------------------------------------


def test_what_is_signed() -> None:
    """Clauses 9.2 and 9.8."""
    assert topics_of([row for row in ROWS if row.signed]) == {
        "aggregator", "status", "history", "work", "replies", "selected", "missing", "edges", "result", "model",
        "unmask", "answers",
    }  # fmt: skip


def test_what_may_be_sealed() -> None:
    """Clauses 9.10 and 9.14."""
    assert topics_of([row for row in ROWS if row.sealable]) == {
        "register",
        "updates",
        "evaluations",
        "control",
    }


def test_what_is_limited() -> None:
    """Clause 8.8."""
    limits = {row.topic: row.limit for row in ROWS if row.limit is not None}
    assert limits == {
        t.RegisterTopic: "registration",
        t.PresenceTopic: "presence",
        t.UpdatesTopic: "other",
        t.EvaluationsTopic: "other",
    }


def test_how_large_it_may_be() -> None:
    """Clause 1.12."""
    for row in ROWS:
        name = row.topic.__name__
        expected = {"json": 64 * 2**10, "msgpack": 2**24 + 2**16, "picture": 2**24, "digit": 1}[row.encoding]
        assert row.largest == (
            2**21
            if name in {"MissingTopic", "EdgesTopic", "ResultTopic", "HistoryTopic", "UnmaskTopic"}
            else expected
        ), name


def test_rows_that_are_all_there_is_below_a_level_have_one_filter() -> None:
    from_aggregator = CHANNELS.between("aggregator", "edge")
    names = [name for name, _ in CHANNELS.filters("a/b", from_aggregator, "7")]
    assert names == [
        "a/b/aggregator", "a/b/clients/7/work", "a/b/clients/7/unmask", "a/b/replies/7",
        "a/b/round/+/selected", "a/b/round/+/result", "a/b/model/#",
    ]  # fmt: skip
    assert CHANNELS.filters("fl", CHANNELS.between("edge", "aggregator")) == [
        ("fl/register/#", 1), ("fl/clients/+/presence", 0), ("fl/updates/#", 1), ("fl/evaluations/+", 1),
    ]  # fmt: skip


# --- mistakes in it -----------------------------------------------------------------------------------------


def row_of(kind: type[m.Message]) -> Channel:
    return CHANNELS.carrying(kind)


def changed(kind: type[m.Message], **changes: Any) -> list[Channel]:
    """The table with another row for this kind."""
    return [replace(row, **changes) if row is row_of(kind) else row for row in ROWS]


MISTAKES: dict[str, tuple[Callable[[], list[Channel]], str]] = {
    "a kind without a row": (lambda: changed(m.Missing, kinds=()), "Missing: in kinds of 0 rows, expected one"),
    "a kind in two rows": (lambda: changed(m.Missing, kinds=(m.Missing, m.Edges)), "Edges: in kinds of 2 rows"),
    "a kind that nobody declares": (lambda: changed(m.Missing, kinds=(m.Missing, Ping)), "Ping: in kinds of 1 rows"),
    "a repeated kind that has no row": (
        lambda: changed(m.Missing, repeats=(Ping,)), "MissingTopic: repeats Ping, expected it in kinds of another row",
    ),
    "a repeated kind in another encoding": (
        lambda: changed(m.Missing, repeats=(m.Update,)), "MissingTopic: repeats Update",
    ),
    "a topic without a row": (
        lambda: [row for row in ROWS if row.topic is not t.PredictTopic], "PredictTopic: 0 rows, expected one",
    ),
    "a topic with two rows": (lambda: [*ROWS, row_of(m.Update)], "UpdatesTopic: 2 rows, expected one"),
    "an unlimited edge": (lambda: changed(m.Evaluation, limit=None), "EvaluationsTopic: limit None"),
    "a limited aggregator": (lambda: changed(m.Status, limit="other"), "StatusTopic: limit other"),
    "a reply that answers nothing": (
        lambda: [replace(row, answers=tuple(k for k in row.answers if k is not m.Grant)) for row in ROWS],
        "Grant: expected in answers of a row",
    ),
    "no kinds": (lambda: changed(m.History, kinds=()), "HistoryTopic: 0 kinds"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name: str) -> None:
    rows, said = MISTAKES[name]
    with pytest.raises(ValueError, match=re.escape(said)):
        Channels(rows(), CHANNELS.kinds, [row.topic for row in ROWS])


def test_two_messages_of_one_kind_are_named() -> None:
    class Twin(m.Scoped):
        kind: Literal["ping"] = "ping"

    with pytest.raises(ValueError, match="Twin: another message has the kind 'ping', too"):
        Channels(
            [*EXTENDED.rows[:-1], replace(NOTICES, kinds=(Notice, Twin))],
            {*EXTENDED.kinds, Twin},
            [row.topic for row in EXTENDED.rows],
        )


def test_a_message_that_is_declared_and_has_no_row_is_found() -> None:
    """What happens when the module is imported: it looks for all messages, also for those that nothing exports."""
    assert {Ping, Pong, Notice} <= declared_kinds()
    assert declared_topics() == {row.topic for row in ROWS}
    with pytest.raises(
        ValueError, match=r"Notice: in kinds of 0 rows.*Ping: in kinds of 0 rows.*Pong: in kinds of 0"
    ):
        Channels(ROWS, declared_kinds(), declared_topics())


def test_messages_exports_every_kind() -> None:
    assert {kind.__name__ for kind in CHANNELS.kinds} <= set(m.__all__)


# --- what has to know every kind ------------------------------------------------------------------------------


def test_the_aggregator_has_a_case_for_each_message_to_it() -> None:
    """A chunk of an update goes on beside its event, a birth says less than the registration that follows it, and of a
    delay only people are told. `MaskedAnswers` reads what members of a masked round answer."""
    silent = {m.UpdateChunk, m.ClientPresence, m.Delayed, m.Agreed, m.Opened, m.Declined}
    heard = set()
    for topic, message in MESSAGES.values():
        if "aggregator" in CHANNELS.of(topic).receivers and type(message) not in silent:
            assert event_from(topic, message, EnvelopeSource(RUN, 1), 0.0, 10) is not None, type(
                message
            ).__name__
            heard.add(type(message))
    rows = [row for row in ROWS if "aggregator" in row.receivers]
    assert heard | silent == {kind for row in rows for kind in row.messages}


def test_only_models_and_requests_come_to_an_edge_elsewhere_than_on_its_session() -> None:
    """Its session is told of all else (`test_trust`). `ModelStore` and `Predictor` know these topics by name."""
    to_edges = CHANNELS.between("aggregator", "edge")
    assert {row.topic for row in to_edges if row.bulk} == set(get_args(ModelDataTopic))
    assert topics_of(CHANNELS.between("asker", "edge")) == {"predict"}
    assert topics_of(CHANNELS.between("edge", "asker")) == {"predictions"}
