"""``fl-aggregator strategies``: what ``--strategy`` and the options of its parts take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from fl_shared.errors import UserError
from fl_shared.system.invocation import aggregator_command

_MEANING: Final = re.compile(r"((?:``\w+``(?:, )?)+): (.+?)(?=\.\s+``\w+``[,:]|\n\s*\n|\Z)", re.DOTALL)
"""The fields that a docstring names, and what it says of them."""
_LIMITS: Final = {
    "exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most",
}  # fmt: skip

if TYPE_CHECKING:
    from fl_aggregator.aggregation.strategies.presets import Preset


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def strategies(name: str | None, as_json: bool) -> None:
    """List strategies and their parts."""
    from fl_aggregator.aggregation.strategies import registry
    from fl_aggregator.aggregation.strategies.presets import PRESETS
    from fl_shared.cli.specification import split

    parts: dict[str, dict[str, Any]] = {kind: {} for kind in registry.PARTS}
    for kind, members in parts.items():
        for part in registry.names(kind):
            try:
                members[part] = _part(kind, part)
            except UserError as error:  # one broken package hides no other
                if name == part:
                    raise
                click.echo(f"fl-aggregator strategies: {error}", err=True)
    presets = {
        preset: {"summary": one.summary, "paper": one.paper, **_kinds_of(one)}
        for preset, one in sorted(PRESETS.items())
    }
    listed: dict[str, Any] = {"strategy": presets, **parts}
    if name is not None:
        listed = {kind: {name: members[name]} for kind, members in listed.items() if name in members}
        if not listed:
            raise UserError(
                f"{name!r}: is no strategy and no part ({aggregator_command('strategies')} lists them)"
            )
        if name in PRESETS:  # with the fields of its parts, which are the strategy's
            for kind, text in _kinds_of(PRESETS[name]).items():
                part, values = split(kind, text)
                listed.setdefault(kind, {})[part] = _with_values(parts[kind][part], values)
    click.echo(
        json.dumps(listed, ensure_ascii=False, indent=2) if as_json else _text(listed, brief=name is None)
    )


def _kinds_of(preset: Preset) -> dict[str, str]:
    """Returns the specifications of a strategy's parts, each by its option."""
    correct = {} if preset.correct is None else {"correct": preset.correct}
    return {"combine": preset.combine, "server-optimizer": preset.optimize, **correct}


def _with_values(part: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Returns a part with these values as the defaults of its fields."""
    fields = {
        field: {**schema, "default": json.loads(values[field]), "required": False}
        if field in values
        else schema
        for field, schema in part["fields"].items()
    }
    return {**part, "fields": fields}


def _part(kind: str, name: str) -> dict[str, Any]:
    from fl_aggregator.aggregation.strategies import registry

    found = registry.part_class(kind, name)
    return {
        "description": " ".join((found.__doc__ or "").replace("``", "").split()),
        "fields": _fields(found),
    }


def _fields(part: type[Any]) -> dict[str, dict[str, Any]]:
    """Returns the JSON Schema of each field of a part, with what its docstring says of it as ``description``."""
    from pydantic import TypeAdapter

    meanings: dict[str, str] = {}
    for names, meaning in _MEANING.findall(part.__doc__ or ""):
        meanings |= dict.fromkeys(
            re.findall(r"\w+", names), " ".join(meaning.replace("``", "").split()).rstrip(".")
        )
    schema = TypeAdapter(part).json_schema()
    options = {field: f"--{option}" for field, option in getattr(part, "from_training", {}).items()}
    fields = {}
    for name, field in schema.get("properties", {}).items():
        left_out = {"title", "default"} if name in options else {"title"}
        fields[name] = {
            **{key: value for key, value in field.items() if key not in left_out},
            "required": name in schema.get("required", ()) and name not in options,
            "description": meanings.get(name, ""),
            **({"from": options[name]} if name in options else {}),
        }
    return fields


def _shown(name: str, field: dict[str, Any]) -> str:
    """Returns a field with its default; in brackets if there is none, and with the option of the run that it is."""
    if field["required"]:
        return f"{name}=…"
    if "from" in field:
        return f"{name}={field['from']}"
    return f"[{name}]" if field["default"] is None else f"{name}={field['default']}"


def _range(field: dict[str, Any]) -> str:
    """Returns the range of a field for a person: ``above 0, at most 10``."""
    limits = {key: value for some in field.get("anyOf", [field]) for key, value in some.items()}
    return ", ".join(f"{words} {limits[key]:g}" for key, words in _LIMITS.items() if key in limits)


def _text(listed: dict[str, Any], *, brief: bool) -> str:
    lines = []
    for kind, members in listed.items():
        lines += [f"--{kind}"] if brief or len(listed) > 1 else []
        for name, member in members.items():
            if "summary" in member:
                lines.append(f"  {name:<18}{member['summary']}")
                if not brief:
                    parts = (f"--{p} {text}" for p, text in member.items() if p not in ("summary", "paper"))
                    lines += [f"  {'':<18}{' '.join(parts)}", f"  {'':<18}{member['paper']}"]
                continue
            fields = ", ".join(_shown(*field) for field in member["fields"].items())
            lines.append(f"  {name:<18}{fields}".rstrip())
            if not brief:
                lines += [
                    f"      {line}" for line in click.wrap_text(member["description"], 100).splitlines()
                ]
                ranges = [f"{f} {limits}" for f, one in member["fields"].items() if (limits := _range(one))]
                lines += [f"      ({'; '.join(ranges)})"] if ranges else []
    return "\n".join(lines)
