"""Sizes, durations and names as people read them; what others say comes to logs and terminals on one line."""

from __future__ import annotations

import json
import logging

import msgpack
import pytest

from fl_shared.cli.logging import start_logging
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from fl_shared.system.text import (
    duration_text,
    limit_text,
    names_text,
    natural_order,
    one_line,
    shortened,
    size_text,
)
from tests.support.samples import MESSAGES

BAD = "a\nb\r\x1b[2Jc\x9b31md\u2028e\u202ef\x00g\x7fh"
PLAIN = "a b  [2Jc 31md e f g h"


def test_what_a_terminal_obeys_becomes_a_space() -> None:
    assert one_line(BAD) == PLAIN
    assert one_line("Zürich – 边缘 🚀 \u00a0 x") == "Zürich – 边缘 🚀 \u00a0 x"
    assert one_line("\ud800") == " "


@pytest.mark.parametrize("name", ["failed", "refused", "rejected", "limited", "prediction-error"])
def test_words_for_people_are_plain_when_they_arrive(name: str) -> None:
    topic, sample = MESSAGES[name]
    member = "error" if name == "prediction-error" else "detail"
    said = sample.model_dump(mode="json") | {member: BAD}
    if CHANNELS.carrying(type(sample)).encoding == "msgpack":
        read = codec.decode(topic, msgpack.packb(said))
    else:
        read = type(sample).model_validate_json(json.dumps(said))
    assert getattr(read, member) == PLAIN


def test_a_result_is_plain() -> None:
    _, sample = MESSAGES["result"]
    assert isinstance(sample, m.Result)
    read = sample.model_validate(sample.model_dump() | {"reason": BAD, "missing": {"7": BAD}})
    assert (read.reason, read.missing) == (PLAIN, {"7": PLAIN})


def test_the_name_of_what_is_wrong_is_plain() -> None:
    topic, sample = MESSAGES["update"]
    said = sample.model_dump() | {"metrics": {"before": {BAD: "no number"}}}
    with pytest.raises(codec.DecodeError) as caught:
        codec.decode(topic, msgpack.packb(said))
    assert f"metrics.before.{PLAIN}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_log_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        start_logging(0, "text")
        logging.getLogger("x").info("it says %s", BAD)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(f"it says {PLAIN}")


def test_topics_of_samples_are_as_they_were() -> None:
    """No sample holds anything that is not plain: their bytes do not change."""
    for topic, sample in MESSAGES.values():
        if not isinstance(topic, t.PredictTopic):
            assert codec.decode(topic, codec.encode(sample)) == sample


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (99_940, "99.9 kB"), (99_960, "100 kB"), (213_000, "213 kB"),
     (999_960, "1.0 MB"), (1_700_000, "1.7 MB"), (17_243_200, "17.2 MB"), (2**31, "2.1 GB"), (5e12, "5.0 TB"),
     (5 * 10**15, "5000 TB")],
)  # fmt: skip
def test_sizes(size: float, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "any size"), (300, "300 bytes"), (2**16, "64 KiB"), (2**20, "1 MiB"), (20_000, "20,000 bytes")],
)
def test_limits(size: int | None, text: str) -> None:
    assert limit_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (42.4, "42 s"), (59.7, "1 min"), (61, "1 min 1 s"), (599.9, "10 min"),
     (754, "13 min"), (3599.6, "1 h"), (7500, "2 h 5 min"), (90_000, "1 d 1 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_names() -> None:
    assert names_text([]) == ""
    assert names_text(["a", "b"], 2) == "a, b"
    assert names_text(["a", "b", "c"], 2) == "a, b and 1 more"


def test_long_text_is_cut_off_with_an_ellipsis() -> None:
    assert shortened("12345", 5) == "12345"
    assert shortened("123456", 5) == "1234…"


def test_names_are_sorted_as_people_count() -> None:
    names = ["10", "edge-10", "2", "edge-9", "1", "a", "edge-9b", "", "٣", "007"]
    assert natural_order(names) == ["", "1", "2", "007", "10", "a", "edge-9", "edge-9b", "edge-10", "٣"]
