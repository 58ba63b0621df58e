"""What the dashboard's scripts know of the protocol agrees with the table of channels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import (
    CHANNELS,
    Channel,
    kind_of,
)

ROOT = Path(__file__).parents[5]
JAVASCRIPT = ROOT / "aggregator" / "fl_aggregator" / "tools" / "dashboard" / "static" / "js"


def script(name: str) -> str:
    return (JAVASCRIPT / name).read_text(encoding="utf-8")


def only(pattern: str, text: str) -> str:
    (found,) = re.findall(pattern, text, re.DOTALL)
    return str(found)


def quoted(text: str) -> list[str]:
    return re.findall(r'"([^"]+)"', text)


def kinds_of_the_page() -> list[str]:
    kinds = only(r"const KINDS = \{(.*?)\n  \};", script("messages.js"))
    return re.findall(r"^    (\w+): shape\(", kinds, re.MULTILINE)


def rows_of_the_page() -> list[Channel]:
    """Of the topics to which it subscribes."""
    broker = script("broker.js")
    filters = quoted(only(r"const below = \[(.*?)\]", broker))
    filters += [
        only(r'EVERY_ROUND = "(.*?)"', script("edges_feed.js")),
        only(r"this\.answers = `([^$`]+)", broker) + "x",
    ]
    rows = []
    for one in filters:
        topic = CHANNELS.parse("fl", "fl/" + one.replace("round/+", "round/1").replace("+", "x"))
        assert topic is not None, f"{one}: no topic of the protocol"
        rows.append(CHANNELS.of(topic))
    return rows


def test_the_page_reads_kinds_that_come_where_it_listens() -> None:
    kinds = kinds_of_the_page()
    assert len(kinds) >= 9
    rows = rows_of_the_page()
    assert {kind_of(kind) for row in rows for kind in row.messages} >= set(kinds)
    for row in rows:
        assert set(map(kind_of, row.messages)) & set(kinds), (
            f"it listens to {row.topic.__name__} and reads nothing there"
        )


def test_the_page_reads_each_kind_on_its_topic() -> None:
    """The lines of `Federation.hear` that say which kinds are read on which topic."""
    lines = re.findall(r"if \((.*?)\) this\.#hear\w+\(.*?Messages\.read\(\[(.*?)\]", script("federation.js"))
    assert len(lines) == 6
    for condition, kinds in lines:
        levels = quoted(condition)
        topic = {1: levels[0], 2: "/".join((levels[0], "1", levels[-1]))}[len(levels)]
        parsed = CHANNELS.parse("fl", f"fl/{topic}")
        assert parsed is not None, topic
        assert set(quoted(kinds)) <= set(map(kind_of, CHANNELS.of(parsed).messages)), topic


def test_the_page_takes_what_is_as_large_as_it_may_be() -> None:
    text = script("messages.js")
    assert only(r"MAX_TEXT_BYTES = ([\d_]+)", text) == "65_536"
    assert only(r"MAX_LONG_BYTES = (.*?);", text) == "2 * 2 ** 20"
    named = quoted(only(r"payload\.length > \(\[(.*?)\]", text))
    larger = {kind_of(kind) for row in rows_of_the_page() for kind in row.messages if row.largest > 2**16}
    assert set(named) == larger & set(kinds_of_the_page())
    assert {row.largest for row in rows_of_the_page()} == {2**16, 2**21}


def test_the_page_knows_every_state_and_phase() -> None:
    text = script("messages.js")
    assert quoted(only(r"const STATES = \[(.*?)\]", text)) == list(get_args(m.EdgeStateName))
    assert quoted(only(r"const PHASES = \[(.*?)\]", text)) == list(get_args(m.Phase))


def test_the_page_asks_on_a_topic_of_requests() -> None:
    asked = only(r'broker\(\)\.ask\("(.*?)"', script("prediction.js"))
    assert CHANNELS.parse("fl", f"fl/{asked}") == t.PredictTopic()
