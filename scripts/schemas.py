"""Writes the JSON Schemas of all messages, of what commands print with ``--json``, and of TOML files with options.

python -m scripts.schemas    # writes docs/schema
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from fl_aggregator.cli.start import start
from fl_aggregator.cli.survey import survey
from fl_aggregator.configuration.settings import Settings
from fl_edge.cli import command as fl_edge
from fl_mqtt.regional.cli import relay
from fl_mqtt.simulation.cli import simulate
from fl_shared.cli.options import KEY_VALUE
from fl_shared.protocol.channels import CHANNELS, kind_of
from scripts.outputs import OUTPUTS

DIRECTORY: Final = Path(__file__).parents[1] / "docs" / "schema"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
CONFIGURED: Final[Mapping[str, click.Command]] = {
    "fl-aggregator start": start,
    "fl-aggregator simulate": simulate,
    "fl-aggregator survey": survey,
    "fl-aggregator relay": relay,
    "fl-edge": fl_edge,
}

Tree = dict[str, Any]


class _Generator(GenerateJsonSchema):
    """Says bytes as the test vectors do: ``{"hex": "…"}``."""

    schema_dialect = DIALECT

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        """Returns the schema of ``{"hex": "…"}``, two digits a byte."""
        digits: Tree = {"type": "string", "pattern": "^([0-9a-f]{2})*$"}
        for ours, theirs in (("minLength", "min_length"), ("maxLength", "max_length")):
            if theirs in schema:
                digits[ours] = 2 * schema[theirs]  # type: ignore[literal-required]
        return {
            "description": "Bytes (msgpack: bin), here as hexadecimal digits.",
            "type": "object",
            "properties": {"hex": digits},
            "required": ["hex"],
            "additionalProperties": False,
        }


def schemas() -> dict[str, Tree]:
    """All schemas, by path below `DIRECTORY`."""
    return (
        {f"messages/{kind_of(model)}.json": _message(model) for model in CHANNELS.kinds}
        | {f"output/{_file(name)}": _of(kind, name, "serialization") for name, kind in OUTPUTS.items()}
        | {f"config/{_file(name)}": _config(name, command) for name, command in CONFIGURED.items()}
    )


def _file(command: str) -> str:
    return command.replace(" ", "-") + ".json"


def _message(model: type[Any]) -> Tree:
    schema = _of(model, kind_of(model), "validation")
    # Each has only one value, so pydantic does not require them; the protocol does (1.3).
    schema["required"] = ["v", "kind", *(n for n in schema.get("required", ()) if n not in ("v", "kind"))]
    return schema


def _of(kind: Any, title: str, mode: JsonSchemaMode) -> Tree:
    schema = TypeAdapter(kind).json_schema(schema_generator=_Generator, mode=mode)
    _clean(schema)
    return {"$schema": DIALECT, "title": title} | schema


def _clean(schema: Any) -> None:
    """Takes titles away, which only repeat names, and makes each docstring one paragraph."""
    match schema:
        case dict():
            if isinstance(schema.get("title"), str):
                del schema["title"]
            if isinstance(text := schema.get("description"), str):
                schema["description"] = " ".join(text.split()).replace("``", "`")
            for value in schema.values():
                _clean(value)
        case list():
            for value in schema:
                _clean(value)


def _config(name: str, command: click.Command) -> Tree:
    context = click.Context(command, info_name=name)
    of_settings = TypeAdapter(Settings).json_schema(schema_generator=_Generator)
    properties: Tree = {}
    for option in command.get_params(context):
        if isinstance(option, click.Option) and option.expose_value:
            for written in (*option.opts, *option.secondary_opts):
                if written.startswith("--"):
                    properties[written[2:]] = {"description": option.help or ""} | _option(
                        option, of_settings
                    )
    return {
        "$schema": DIALECT,
        "title": f"The TOML file of {name} --config",
        "type": "object",
        "properties": dict(sorted(properties.items())),
        "additionalProperties": False,
    }


def _option(option: click.Option, of_settings: Tree) -> Tree:
    if option.multiple:
        one = {"type": ["string", "number"]}
        table = [{"type": "object", "additionalProperties": one}] if option.metavar == KEY_VALUE else []
        return {"anyOf": [one, {"type": "array", "items": one}, *table]}
    if option.is_flag:
        return {"type": "boolean"}
    kind = option.type
    if isinstance(kind, click.Choice):
        return {"enum": [int(text) if text.isdigit() else text for text in kind.choices]}
    if kind.name.startswith(("integer", "float")):
        declared = of_settings["properties"].get(option.name, {})
        limits = {key: value for key, value in _alone(declared).items() if key in _LIMITS}
        return {"type": "integer" if kind.name.startswith("integer") else "number"} | _range(kind) | limits
    return {"type": ["string", "number"]}


_LIMITS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def _alone(schema: Tree) -> Tree:
    """The schema of a member that may be null, without that."""
    others: list[Tree] = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    return others[0] if len(others) == 1 else {}


def _range(kind: click.ParamType[Any]) -> Tree:
    if not isinstance(kind, click.IntRange | click.FloatRange):
        return {}
    low = "exclusiveMinimum" if kind.min_open else "minimum"
    high = "exclusiveMaximum" if kind.max_open else "maximum"
    return {name: limit for name, limit in ((low, kind.min), (high, kind.max)) if limit is not None}


def render(schema: Tree) -> str:
    """The text of a file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, content in schemas().items():
        (DIRECTORY / path).parent.mkdir(parents=True, exist_ok=True)
        (DIRECTORY / path).write_text(render(content), encoding="utf-8")
