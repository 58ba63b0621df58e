"""The page of all topics and messages, from the AsyncAPI document: who sends what where, and all members."""

from __future__ import annotations

import json
from typing import Any, Final

Tree = dict[str, Any]

TOP: Final = """# Topics and messages

What [`asyncapi.yaml`](../asyncapi.yaml) says, as a page. [The protocol](../protocol.md) says in numbered clauses what
must be done with it. A topic is shown with the prefix `fl`. Messages without another format are JSON objects.
"""
LIMITS: Final = {
    "pattern": "pattern", "minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<",
    "minLength": "length ≥", "maxLength": "length ≤", "minItems": "items ≥", "maxItems": "items ≤", "format": "format",
}  # fmt: skip


def render(document: Tree) -> str:
    """The page in Markdown, of the whole AsyncAPI document as plain data."""
    lines = [TOP, "## Topics", "", "| topic | what | sent by | received by | QoS | retained | messages |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for name, channel in document["channels"].items():
        lines.append(_channel(name, channel, document["operations"]))
    lines += ["", "## Messages", ""]
    schemas = document["components"]["schemas"]
    for message in document["components"]["messages"].values():
        lines += [f"### {message['name']}", "", _cell(message.get("description", "")), ""]
        lines += [f"Content type: `{message['contentType']}`." if "contentType" in message else "", ""]
        payload = _resolved(message.get("payload", {}), schemas)
        lines += _members(payload)
    lines += ["## Parts of messages", ""]
    of_messages = {
        _ref(message.get("payload", {})) for message in document["components"]["messages"].values()
    }
    for name, schema in schemas.items():
        if name not in of_messages:
            lines += [f"### {name}", "", _cell(schema.get("description", "")), "", *_members(schema)]
    return "\n".join(lines) + "\n"


def _channel(name: str, channel: Tree, operations: Tree) -> str:
    of_channel = [o for o in operations.values() if o["channel"]["$ref"] == f"#/channels/{name}"]
    who: dict[str, set[str]] = {action: set() for action in ("send", "receive")}
    for operation in of_channel:
        who[operation["action"]] |= {tag["name"] for tag in operation.get("tags", [])}
    mqtt: Tree = next((o["bindings"]["mqtt"] for o in of_channel if "bindings" in o), {})
    topic = (channel["address"] or "(Response Topic)").replace("{prefix}", "fl")
    messages = ", ".join(f"[{kind}](#{kind.lower()})" for kind in channel["messages"])
    cells = (
        f"`{topic}`",
        _cell(channel.get("description", "")),
        *(", ".join(sorted(names)) for names in who.values()),
        str(mqtt.get("qos", "")),
        ("yes" if mqtt["retain"] else "no") if "retain" in mqtt else "",
        messages,
    )
    return "| " + " | ".join(cells) + " |"


def _members(schema: Tree) -> list[str]:
    """A table of the members of an object; of anything else, one line that says what it is."""
    if "properties" not in schema:
        return [f"{_type(schema)}.", ""] if schema else []
    required = schema.get("required", [])
    lines = ["| member | type | needed | default |", "| --- | --- | --- | --- |"]
    for name, member in schema["properties"].items():
        default = "" if member.get("default") is None else f"`{json.dumps(member['default'])}`"
        lines.append(f"| `{name}` | {_type(member)} | {'yes' if name in required else 'no'} | {default} |")
    return [*lines, ""]


def _type(schema: Tree) -> str:
    """What a value may be, in one cell of a table."""
    if name := _ref(schema):
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(choice) for choice in schema[key]))
    limits = [f"{word} `{schema[key]}`".replace("|", r"\|") for key, word in LIMITS.items() if key in schema]
    text: str = str(schema.get("type", "anything"))
    if text == "array" and "items" in schema:
        text = f"array of {_type(schema['items'])}"
    elif text == "array" and "prefixItems" in schema:
        text = f"array: {', '.join(_type(item) for item in schema['prefixItems'])}"
    elif text == "object" and isinstance(schema.get("additionalProperties"), dict):
        text = f"object of {_type(schema['additionalProperties'])}"
    return ", ".join([text, *limits])


def _resolved(schema: Tree, schemas: Tree) -> Tree:
    name = _ref(schema)
    return schemas[name] if name else schema


def _ref(schema: Tree) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
