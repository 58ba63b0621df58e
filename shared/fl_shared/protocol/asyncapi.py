"""The protocol as an AsyncAPI 3.0 document, generated from `messages`, `topics` and `channels`.

``python -m fl_shared.protocol.asyncapi > docs/asyncapi.yaml`` writes the file in the repository (this needs
PyYAML). https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channel, Channels, kind_of

Tree = dict[str, Any]

DEFAULT_PREFIX: Final = "fl"
BINDING_VERSION: Final = "0.2.0"
"""The version of the MQTT bindings: https://github.com/asyncapi/bindings/tree/master/mqtt"""
REQUEST_MESSAGE: Final = "predict-request"
BRIDGE_MESSAGE: Final = "bridge-state"
UNNAMED: Final[dict[str, str]] = {"picture": REQUEST_MESSAGE, "digit": BRIDGE_MESSAGE}
"""The name in this document of a message without a kind, by its format."""
RESPONSE_CHANNEL: Final = "responseTopic"
"""The channel whose address is the Response Topic of a request."""
REQUEST_EXPIRY: Final = 30
"""Seconds after which a request of our own client expires."""

PARAMETERS: Final[dict[str, str]] = {
    "prefix": "What all topics begin with: one to five levels without wildcards, `$` and spaces.",
    "client": "An edge's id: 1 to 64 of `A-Z a-z 0-9 _ -`. The client in the payload must be the same.",
    "round": "A round's number, decimal, without leading zeros.",
    "digest12": "The first twelve hexadecimal digits of the model's digest.",
    "index": "Which chunk, from 0.",
    "asker": "A random name that the asker has given itself, of the same form as a client's.",
    "broker": "The name of a broker that is bridged to the aggregator's, of the same form as a client's.",
}


def document(version: str, table: Channels = CHANNELS) -> Tree:
    """The whole document as plain data; ``version`` is the protocol's version."""
    channels: Tree = {}
    operations: Tree = {}
    for row in table.rows:
        for without_client in (False, True) if t.is_optional(row.topic) else (False,):
            name = channel_name(row.topic, without_client)
            channels[name] = _channel(row, without_client)
            operations |= _operations(row, name)
    channels[RESPONSE_CHANNEL] = {
        "address": None,
        "description": "The request's Response Topic (MQTT 5): anything but a wildcard, a topic that begins with "
        "`$`, and one under the prefix other than `predictions/…`. Its Correlation Data comes back.",
        "messages": {"prediction": _ref("messages", "prediction")},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Federated learning over MQTT",
            "version": version,
            "description": "What an aggregator and its edges say to each other. `docs/protocol.md` says in numbered "
            "clauses what must be done with it. Made by `python -m fl_shared.protocol.asyncapi`; do not edit.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"broker": _server()},
        "channels": channels,
        "operations": operations,
        "components": {"messages": _messages(table), "schemas": _schemas(table)},
    }


def _server() -> Tree:
    return {
        "host": "{host}:{port}",
        "protocol": "mqtt",
        "protocolVersion": "5.0",
        "description": "Any MQTT 5 broker; `fl-aggregator doctor` says whether it will do.",
        "variables": {"host": {"default": "localhost"}, "port": {"default": "1883"}},
        "bindings": {
            "mqtt": {
                "cleanSession": True,
                "keepAlive": 30,
                "sessionExpiryInterval": 0,
                "maximumPacketSize": m.MAX_PACKET,
                "bindingVersion": BINDING_VERSION,
            }
        },
    }


def channel_name(kind: type[t.Topic], without_client: bool = False) -> str:
    """The name of a channel: ``status`` for ``StatusTopic``.

    A topic with an optional last level makes two channels; ``without_client`` means the one without it.
    """
    name = kind.__name__.removesuffix("Topic")
    return name[0].lower() + name[1:] + ("Bare" if without_client else "")


def address(kind: type[t.Topic], without_client: bool = False) -> str:
    """The topic with its parameters in braces, as `topics.build` makes it; perhaps without its last level."""
    levels = {
        field.name: None if without_client else f"{{{field.name}}}" for field in dataclasses.fields(kind)
    }
    make_topic: Any = kind
    return t.build("{prefix}", make_topic(**levels))


def _channel(row: Channel, without_client: bool) -> Tree:
    channel_address = address(row.topic, without_client)
    names = [name for name in ("prefix", *t.FIELDS) if f"{{{name}}}" in channel_address]
    parameters: Tree = {name: {"description": PARAMETERS[name]} for name in names}
    parameters["prefix"]["default"] = DEFAULT_PREFIX
    # A topic's docstring begins with the topic, which is the address here.
    texts = [_docstring(row.topic).partition(": ")[2].capitalize(), row.note]
    return {
        "address": channel_address,
        **({"description": " ".join(text for text in texts if text)} if any(texts) else {}),
        "servers": [{"$ref": "#/servers/broker"}],
        "parameters": parameters,
        "messages": {name: _ref("messages", name) for name in _kinds(row)},
    }


def _kinds(row: Channel) -> list[str]:
    if row.encoding in UNNAMED:
        return [UNNAMED[row.encoding]]
    return [kind_of(model) for model in row.messages]


def _operations(row: Channel, name: str) -> Tree:
    channel = {"$ref": f"#/channels/{name}"}
    title = name[0].upper() + name[1:]
    binding: Tree = {"qos": row.published_qos, "retain": row.retained}
    if row.encoding == "picture":
        binding["messageExpiryInterval"] = REQUEST_EXPIRY
    sent: Tree = {
        "action": "send",
        "channel": channel,
        "tags": [{"name": row.sender}],
        "bindings": {"mqtt": {**binding, "bindingVersion": BINDING_VERSION}},
    }
    reply = _reply(row)
    operations: Tree = {f"{row.sender}Sends{title}": sent | reply}
    for receiver in row.receivers:
        # The aggregator and edges answer what they receive; a watcher of presence, for example, does not.
        reply_if_known = reply if receiver in ("aggregator", "edge") else {}
        operations[f"{receiver}Receives{title}"] = {
            "action": "receive",
            "channel": channel,
            "tags": [{"name": receiver}],
            **reply_if_known,
        }
    return operations


def _reply(row: Channel) -> Tree:
    if row.encoding == "picture":
        return {
            "reply": {
                "address": {
                    "location": "$message.header#/responseTopic",
                    "description": "The Response Topic; where there is none the answer goes to `predictionsBare`.",
                },
                "channel": {"$ref": f"#/channels/{RESPONSE_CHANNEL}"},
                "messages": [{"$ref": f"#/channels/{RESPONSE_CHANNEL}/messages/prediction"}],
            }
        }
    if not row.answers:
        return {}
    channel_ref = f"#/channels/{channel_name(t.RepliesTopic)}"
    messages = [{"$ref": f"{channel_ref}/messages/{kind_of(model)}"} for model in row.answers]
    return {"reply": {"channel": {"$ref": channel_ref}, "messages": messages}}


def _messages(table: Channels) -> Tree:
    messages: Tree = {}
    for model in _models(table):
        messages[kind_of(model)] = {
            "name": kind_of(model),
            "title": model.__name__,
            "description": _docstring(model),
            "contentType": f"application/{table.carrying(model).encoding}",
            "payload": _ref("schemas", model.__name__),
        }
    messages[BRIDGE_MESSAGE] = {
        "name": BRIDGE_MESSAGE,
        "title": "The state of a bridge",
        "description": "What a Mosquitto writes with `notification_topic`.",
        "contentType": "text/plain",
        "payload": {"type": "string", "enum": ["0", "1"]},
    }
    messages[REQUEST_MESSAGE] = {
        "name": REQUEST_MESSAGE,
        "title": "A prediction request",
        "description": "A picture file as it is (PNG or JPEG), or JSON with `pixels`.",
        "headers": {
            "type": "object",
            "description": "Properties of the PUBLISH packet.",
            "properties": {"responseTopic": {"type": "string"}, "correlationData": {"type": "string"}},
        },
        "contentType": "application/json",
        "payload": {
            "anyOf": [
                _ref("schemas", m.ImageRequest.__name__),
                {"type": "string", "format": "binary", "description": "The bytes of a PNG or JPEG file."},
            ]
        },
    }
    return messages


def _models(table: Channels) -> list[type[m.Message]]:
    """All kinds of messages, without repetition, in the order of the rows."""
    return list(dict.fromkeys(model for row in table.rows for model in row.messages))


def _schemas(table: Channels) -> Tree:
    models = _models(table)
    everything: list[type[m.Fragment]] = [*models, m.ImageRequest]
    _, generated = models_json_schema(
        [(model, "validation") for model in everything],
        ref_template="#/components/schemas/{model}",
    )
    schemas: Tree = generated["$defs"]
    for schema in schemas.values():
        for schema_member in schema.get("properties", {}).values():
            schema_member.pop("title", None)  # it only repeats the name
    for model in models:
        schema = schemas[model.__name__]
        # These have only one value each, so pydantic does not require them; clause 1.3 does.
        schema["required"] = ["v", "kind", *(n for n in schema.get("required", ()) if n not in ("v", "kind"))]
        schema.pop("description", None)  # the message has it, too
    return schemas


def _ref(section: str, name: str) -> Tree:
    return {"$ref": f"#/components/{section}/{name}"}


def _docstring(documented_class: type[Any]) -> str:
    """The docstring of a class as one paragraph of Markdown; empty if the class has none."""
    docstring = documented_class.__dict__.get("__doc__") or ""
    text = " ".join(inspect.cleandoc(docstring).split()).replace("``", "`")
    return "" if text.startswith(f"{documented_class.__name__}(") else text


def render(version: str = str(m.PROTOCOL_VERSION)) -> str:
    """The text of ``docs/asyncapi.yaml``. Needs PyYAML."""
    import yaml

    class Plain(yaml.SafeDumper):
        """A dumper without anchors: a value that occurs twice is written twice."""

        def ignore_aliases(self, _: Any) -> bool:
            return True

    text: str = yaml.dump(document(version), Dumper=Plain, sort_keys=False, allow_unicode=True, width=110)
    return text


if __name__ == "__main__":
    sys.stdout.write(render())
