"""``docs/asyncapi.yaml`` is what the models and topics say, and a valid AsyncAPI 3.0 document."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import pytest
import yaml

from fl_shared.protocol import asyncapi
from fl_shared.protocol.channels import CHANNELS
from tests.support.samples import MESSAGES

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "tests" / "golden"
SPEC = json.loads((ROOT / "tests" / "asyncapi" / "schema-3.0.0.json").read_text())
TEXT = (ROOT / "docs" / "asyncapi.yaml").read_text()
# The loader in C, where PyYAML has it, takes a tenth of the time.
DOCUMENT: dict[str, Any] = yaml.load(TEXT, getattr(yaml, "CSafeLoader", yaml.SafeLoader))

Tree = dict[str, Any]


def test_the_file_is_what_the_code_makes() -> None:
    assert asyncapi.render() == TEXT, "python -m fl_shared.protocol.asyncapi > docs/asyncapi.yaml"


def test_it_is_a_valid_document() -> None:
    jsonschema.Draft7Validator.check_schema(SPEC)
    jsonschema.validate(DOCUMENT, SPEC, jsonschema.Draft7Validator)


def _no_address(document: Tree) -> None:
    document["channels"]["status"]["address"] = 5


def _no_action(document: Tree) -> None:
    del document["operations"]["edgeSendsRegister"]["action"]


def _no_such_qos(document: Tree) -> None:
    document["operations"]["edgeSendsRegister"]["bindings"]["mqtt"]["qos"] = 3


def _no_channel(document: Tree) -> None:
    del document["operations"]["edgeSendsRegister"]["reply"]["channel"]["$ref"]
    document["operations"]["edgeSendsRegister"]["reply"]["channel"]["address"] = "fl/replies/7"


@pytest.mark.parametrize("break_it", [_no_address, _no_action, _no_such_qos, _no_channel])
def test_the_schema_would_find_a_mistake(break_it: Callable[[Tree], None]) -> None:
    document = copy.deepcopy(DOCUMENT)
    break_it(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SPEC, jsonschema.Draft7Validator)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for below in node.values():
            yield from _references(below)
    elif isinstance(node, list):
        for below in node:
            yield from _references(below)


def test_every_reference_leads_somewhere() -> None:
    found = set(_references(DOCUMENT))
    assert len(found) > 50
    for reference in found:
        node: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            assert step in node, reference
            node = node[step]


def test_every_topic_has_its_channel() -> None:
    addresses = [channel["address"] for channel in DOCUMENT["channels"].values()]
    assert len(addresses) == len(set(addresses))


def _plain(node: Any) -> Any:
    """msgpack's ``bin`` as the text that JSON Schema knows (``format: binary``)."""
    match node:
        case bytes():
            return node.decode("latin-1")
        case dict():
            return {key: _plain(value) for key, value in node.items()}
        case list():
            return [_plain(value) for value in node]
        case _:
            return node


def _golden(name: str) -> Any:
    path = next(GOLDEN.glob(f"{name}.*"))
    data = path.read_bytes()
    return _plain(msgpack.unpackb(data)) if path.suffix == ".msgpack" else json.loads(data)


def _message(fields: Tree) -> Tree:
    found: Tree = DOCUMENT["components"]["messages"][fields["kind"]]
    return found


def _fits(fields: Tree) -> bool:
    schema = {**_message(fields)["payload"], "components": DOCUMENT["components"]}
    return jsonschema.Draft7Validator(schema).is_valid(fields)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_golden_vector_fits_its_schema(name: str) -> None:
    topic, _ = MESSAGES[name]
    fields = _golden(name)
    assert _fits(fields)
    channel = DOCUMENT["channels"][asyncapi.channel_name(type(topic))]
    assert fields["kind"] in channel["messages"]
    assert _message(fields)["contentType"] == f"application/{CHANNELS.of(topic).encoding}"
    assert _fits({**fields, "x_unknown": {"deep": [1]}}), "clause 1.4"


@pytest.mark.parametrize("name", MESSAGES)
def test_a_spoilt_vector_does_not_fit(name: str) -> None:
    fields = _golden(name)
    for member in set(fields) - {"kind", "example"}:  # an example may be anything
        assert not _fits({**fields, member: [None]}), member
    assert not _fits({**fields, "v": 1})
    required = DOCUMENT["components"]["schemas"][_message(fields)["title"]]["required"]
    for member in set(required) - {"kind"}:
        assert not _fits({key: value for key, value in fields.items() if key != member}), member


def test_a_request_in_json_fits() -> None:
    payload = DOCUMENT["components"]["messages"]["predict-request"]["payload"]
    check = jsonschema.Draft7Validator({**payload, "components": DOCUMENT["components"]})
    assert check.is_valid({"pixels": [[0, 255], [3, 4]]})
    assert not check.is_valid({"pixels": 7})
