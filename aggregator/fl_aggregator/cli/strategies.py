"""``fl-aggregator strategies``: what ``--strategy`` and the options of its parts take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from fl_shared.errors import UserError
from fl_shared.system.invocation import aggregator_command

if TYPE_CHECKING:
    from fl_aggregator.aggregation.strategies.presets import Preset


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def strategies(name: str | None, as_json: bool) -> None:
    """List strategies and their parts."""
    from fl_aggregator.aggregation.strategies import registry
    from fl_aggregator.aggregation.strategies.presets import PRESETS

    parts = {kind: {part: _part(kind, part) for part in registry.names(kind)} for kind in registry.PARTS}
    presets = {preset: {"summary": one.summary, **_kinds_of(one)} for preset, one in sorted(PRESETS.items())}
    listed: dict[str, Any] = {"strategy": presets, **parts}
    if name is not None:
        listed = {kind: {name: members[name]} for kind, members in listed.items() if name in members}
        if not listed:
            raise UserError(
                f"{name!r}: is no strategy and no part ({aggregator_command('strategies')} lists them)"
            )
        if name in PRESETS:  # with the fields of its parts, which are the strategy's
            for kind, text in _kinds_of(PRESETS[name]).items():
                part = text.partition(":")[0]
                listed.setdefault(kind, {})[part] = parts[kind][part]
    click.echo(
        json.dumps(listed, ensure_ascii=False, indent=2) if as_json else _text(listed, brief=name is None)
    )


def _kinds_of(preset: Preset) -> dict[str, str]:
    """Returns the specifications of a strategy's parts, each by its option."""
    correct = {} if preset.correct is None else {"correct": preset.correct}
    return {"combine": preset.combine, "server-optimizer": preset.optimize, **correct}


def _part(kind: str, name: str) -> dict[str, Any]:
    from fl_aggregator.aggregation.strategies import registry

    found = registry.part_class(kind, name)
    return {
        "description": " ".join((found.__doc__ or "").replace("``", "").split()),
        "fields": registry.fields_of(found),
    }


def _text(listed: dict[str, Any], *, brief: bool) -> str:
    lines = []
    for kind, members in listed.items():
        lines += [f"--{kind}"] if brief or len(listed) > 1 else []
        for name, member in members.items():
            if "summary" in member:
                lines.append(f"  {name:<18}{member['summary']}")
                if not brief:
                    parts = (f"--{part} {text}" for part, text in member.items() if part != "summary")
                    lines.append(f"  {'':<18}{' '.join(parts)}")
                continue
            fields = ", ".join(f"{f}={v}" for f, v in member["fields"].items())
            lines.append(f"  {name:<18}{fields}".rstrip())
            if not brief:
                lines += [
                    f"      {line}" for line in click.wrap_text(member["description"], 100).splitlines()
                ]
    return "\n".join(lines)
