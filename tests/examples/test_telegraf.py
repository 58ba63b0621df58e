"""``examples/telegraf.conf`` reads what the messages have. Telegraf itself is not here."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "examples" / "telegraf.conf").read_text(encoding="utf-8")
CONSUMERS = tomllib.loads(TEXT)["inputs"]["mqtt_consumer"]
GOLDEN = {"fl/status": "status.json", "fl/clients/+/presence": "presence.json"}
TYPES: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "string": str}


def golden(topic: str) -> dict[str, Any]:
    """The golden message of the topic."""
    found: dict[str, Any] = json.loads((ROOT / "tests" / "golden" / GOLDEN[topic]).read_text())
    return found


def at(message: Any, path: str) -> Any:
    """What GJSON finds at a path of names; ``#`` is the length of an array. Raises ``KeyError`` if there is nothing."""
    for name in path.split("."):
        if message is None:
            raise KeyError(path)
        message = len(message) if name == "#" else message[name]
    return message


def parser(consumer: dict[str, Any]) -> dict[str, Any]:
    (only,) = consumer["json_v2"]
    found: dict[str, Any] = only
    return found


READ: list[tuple[str, str, dict[str, Any]]] = [
    (consumer["topics"][0], kind, one)
    for consumer in CONSUMERS
    for kind in ("tag", "field", "object")
    for one in parser(consumer).get(kind, ())
]


@pytest.mark.parametrize(
    ("topic", "kind", "read"), READ, ids=[f"{topic} {read['path']}" for topic, _, read in READ]
)
def test_what_is_read_is_in_the_message(topic: str, kind: str, read: dict[str, Any]) -> None:
    if read.get("optional"):
        with pytest.raises(KeyError):  # else it need not be optional
            at(golden(topic), read["path"])
        return
    value = at(golden(topic), read["path"])
    if kind == "object":
        assert isinstance(value, dict)
    elif value is not None:
        assert isinstance(value, TYPES[read.get("type", "string")])


def test_what_is_optional_is_in_the_message_of_a_private_run() -> None:
    optional = [read["path"] for _, _, read in READ if read.get("optional")]
    assert optional == ["privacy.epsilon"]
    spent = m.PrivacySpent(
        mechanism="central", against="wire", trusted="aggregator", clip=0.5, noise=6.3, sensitivity=1.4, mu=0.2,
        epsilon=0.8, delta=1e-5, advantage=0.09, budget=2.0, releases=12, spent_by="e7",
    )  # fmt: skip
    message = {**golden("fl/status"), "privacy": spent.status.model_dump(mode="json")}
    assert (
        at(m.Status.model_validate_json(json.dumps(message)).model_dump(mode="json"), "privacy.epsilon")
        == 0.8
    )


def test_the_topics_are_ours_and_the_time_is_the_messages() -> None:
    assert [consumer["topics"] for consumer in CONSUMERS] == [[topic] for topic in GOLDEN]
    assert t.build("fl", t.StatusTopic()) == "fl/status"
    assert t.build("fl", t.PresenceTopic("+")) == "fl/clients/+/presence"
    (status, _presence) = map(parser, CONSUMERS)
    assert (
        status["timestamp_format"] == "2006-01-02T15:04:05Z07:00"
    )  # in which Go reads fractions of a second, too
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", at(golden("fl/status"), status["timestamp_path"])
    )


def test_the_alternative_is_toml_as_well() -> None:
    """The lines at the end, without their comment signs."""
    start = TEXT.index("# [[inputs.prometheus]]")
    alternative = tomllib.loads(re.sub(r"^# ", "", TEXT[start:], flags=re.MULTILINE))
    assert alternative["inputs"]["prometheus"][0]["urls"] == ["http://127.0.0.1:9464/metrics"]
