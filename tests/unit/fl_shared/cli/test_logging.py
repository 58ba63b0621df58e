"""Log lines on standard error."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from fl_shared.cli.logging import start_logging


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers = handlers


def test_the_traceback_of_another_process_follows_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(0, "text")
    logging.getLogger("x").error("it failed\nbadly", extra={"exception": "Traceback:\nKeyError: 3"})
    assert capsys.readouterr().err.splitlines()[0][9:] == "error: it failed badly"
    logging.getLogger("x").error("it failed", extra={"exception": "Traceback:\nKeyError: 3"})
    assert capsys.readouterr().err.splitlines()[1:] == ["Traceback:", "KeyError: 3"]


def test_an_error_is_a_member_of_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(0, "json")
    logging.getLogger("x").error("it failed", extra={"exception": "Traceback:\nKeyError: 3"})
    try:
        raise KeyError(4)
    except KeyError:
        logging.getLogger("x").exception("again")
    logging.getLogger("x").info("well")
    one, two, three = map(json.loads, capsys.readouterr().err.splitlines())
    assert one["exception"] == "Traceback:\nKeyError: 3"
    assert two["exception"].endswith("KeyError: 4")
    assert "exception" not in three
