"""Who asks for an edge's log, and what he gets (protocol, section 12), in virtual time."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from fl_edge.runtime.log_readers import LINE_RATE, MAX_READERS, READER_RATE, Answer, LogReaders
from fl_edge.runtime.recent_lines import MAX_LINES, RecentLines
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol.limits import MAX_JSON

LOG = logging.getLogger("fl_edge.runtime.loop")


class Book:
    """The lines of a process with the edges 7 and 8, and who reads them."""

    def __init__(self, *, tells_all: bool = True, allowed: bool = True) -> None:
        self.tells_all = tells_all
        self.lines = RecentLines(lambda _: self.tells_all)
        self.readers = LogReaders(self.lines, allowed=allowed, sealer_for=None)

    def log(self, text: str, level: int = logging.INFO, client: str | None = "7", **extra: Any) -> None:
        record = LOG.makeRecord(
            extra.pop("name", LOG.name), level, "", 0, text, (), None, extra={"client": client, **extra}
        )
        self.lines.handle(record)

    def ask(self, now: float, **changes: Any) -> list[m.LogLines]:
        request = {"client": "7", "reader": "r", "level": "info", "recent": 10, "seconds": 30, **changes}
        return _messages(self.readers.asked(m.LogRequest(**request), now))

    def advance(self, now: float) -> list[m.LogLines]:
        return _messages(self.readers.advance(now))


def _messages(answers: list[Answer]) -> list[m.LogLines]:
    return [answer.message for answer in answers]


def texts(messages: list[m.LogLines]) -> list[str]:
    return [line.text for message in messages for line in message.lines]


def test_12_1_without_a_request_nothing_is_sent() -> None:
    book = Book()
    book.log("one")
    assert book.advance(1000.0) == []
    assert book.readers.due == float("inf")


def test_12_2_recent_lines_come_first_and_then_live_ones() -> None:
    book = Book()
    for number in range(100):
        book.log(f"line {number}")
    first = book.ask(0.0, recent=70)
    assert texts(first) == [f"line {number}" for number in range(30, 100)]
    assert [(one.number, one.recent) for one in first] == [(0, 38), (1, 6), (2, 0)]
    assert book.advance(1.0) == [], "nothing is new"
    book.log("later")
    assert book.advance(1.5) == [], "at most once a second"
    assert texts(book.advance(2.0)) == ["later"]
    assert book.advance(3.0) == []


def test_12_1_a_request_holds_for_its_time_unless_it_is_repeated() -> None:
    book = Book()
    assert texts(book.ask(0.0)) == []
    assert len(book.ask(20.0)) == 1, "each request is answered"
    book.log("in time")
    assert texts(book.advance(45.0)) == ["in time"]
    book.log("too late")
    assert book.advance(50.0) == []
    assert book.readers.due == float("inf")


def test_12_1_a_reader_ends_it() -> None:
    book = Book()
    book.ask(0.0)
    assert book.ask(1.0, seconds=0) == []
    assert book.readers.due == float("inf")


def test_12_1_the_level_and_the_edge_choose_the_lines() -> None:
    book = Book()
    book.log("info")
    book.log("another edge's", logging.ERROR, client="8")
    book.log("of the process", logging.WARNING, client=None)
    book.log("error", logging.ERROR)
    book.log("critical", logging.CRITICAL)
    [answer] = book.ask(0.0, level="warning")
    assert [(line.level, line.text) for line in answer.lines] == [
        ("warning", "of the process"), ("error", "error"), ("error", "critical"),
    ]  # fmt: skip


def test_12_3_a_flood_is_cut_and_counted() -> None:
    book = Book()
    book.ask(0.0)
    for number in range(500):
        book.log(f"flood {number}")
    sent = book.advance(1.0)
    assert len(texts(sent)) == LINE_RATE.burst
    assert [one.left_out for one in sent] == [440, 0]
    for number in range(500):
        book.log(f"more {number}")
    assert len(texts(book.advance(2.0))) == LINE_RATE.per_second


def test_12_3_the_longest_lines_fit_into_a_message() -> None:
    book = Book()
    for _ in range(m.MAX_RECENT_LINES):
        book.log("\U0001f9e8" * 1000)
    answers = book.ask(0.0, recent=m.MAX_RECENT_LINES)
    assert all(len(codec.encode(one)) <= MAX_JSON for one in answers)
    assert {len(text) for text in texts(answers)} == {m.MAX_LOG_TEXT}


def test_the_memory_of_a_long_life_is_bounded() -> None:
    book = Book()
    for number in range(3 * MAX_LINES):
        book.log(str(number))
    assert len(book.lines.after(0, "7")) == MAX_LINES


def test_12_3_no_more_readers_than_four() -> None:
    book = Book()
    for number in range(MAX_READERS):
        book.ask(0.0, reader=f"r{number}")
    assert [one.refused for one in book.ask(1.0, reader="late")] == ["too-many-readers"]
    assert book.ask(1.5, reader="late") == [], "12.6: at most once a second"
    assert [one.refused for one in book.ask(31.0, reader="late")] == [None], "the others have run out"


def test_12_3_readers_that_come_and_go_get_few_recent_lines() -> None:
    """An end needs no voucher, and a copy of a request has one: so a short message would bring a hundred long ones."""
    book = Book()
    for number in range(200):
        book.log(f"line {number}")
    lines = 0
    for number in range(1000):
        now = 100.0 + number / 100  # ten seconds
        lines += len(texts(book.ask(now, reader=f"r{number}", recent=200)))
        book.ask(now, reader=f"r{number}", seconds=0)
    assert lines == 200 * (READER_RATE.burst + 10 * READER_RATE.per_second - 1)
    (answer,) = book.ask(200.0, reader="later")
    assert answer.refused is None


def test_12_6_an_edge_whose_user_does_not_want_it() -> None:
    book = Book(allowed=False)
    book.log("one")
    [answer] = book.ask(0.0)
    assert (answer.refused, answer.lines) == ("not-allowed", ())
    assert book.readers.due == float("inf")


def test_12_5_what_may_say_something_of_the_data_stays_on_the_edge() -> None:
    book = Book(tells_all=False)
    book.log("column age: 'John Doe' is no number")
    book.log("cannot train: 'John Doe' is no number", told="cannot train: an error in the data")
    book.log("no broker: timed out; trying again", name="fl_edge.runtime.notices")
    book.log("scores", name="fl_edge.runtime.noticesX")
    book.tells_all = True  # the next run learns each update, but this was about another one
    [answer] = book.ask(0.0)
    assert [line.text for line in answer.lines] == [
        "cannot train: an error in the data", "no broker: timed out; trying again",
    ]  # fmt: skip
    assert answer.withheld == 2


def test_12_5_a_traceback_is_not_among_the_lines() -> None:
    book = Book()
    try:
        raise ValueError("John Doe")
    except ValueError as error:
        record = LOG.makeRecord(
            LOG.name, logging.ERROR, "", 0, "it failed", (), (ValueError, error, error.__traceback__)
        )
        record.exception = "Traceback: John Doe"
        book.lines.handle(record)
    assert "John" not in json.dumps([one.model_dump(mode="json") for one in book.ask(0.0)])


def test_a_line_with_controls_is_one_line() -> None:
    book = Book()
    book.log("two\nlines \x1b[31m\u202e")
    assert texts(book.ask(0.0)) == ["two lines  [31m "]


def test_a_broken_record_harms_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    book = Book()
    book.lines.handle(LOG.makeRecord(LOG.name, logging.INFO, "", 0, "%d", ("x",), None))
    book.log("the next")
    assert texts(book.ask(0.0)) == ["the next"]
    assert "Logging error" in capsys.readouterr().err
