"""What others say comes to logs and terminals on one line, and moves nothing there."""

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
from fl_shared.system.text import one_line
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
