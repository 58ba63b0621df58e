"""The command ``fl-aggregator tasks``. The function imports what is slow to import."""

from __future__ import annotations

import json
from typing import Any

import click

from fl_shared.cli import options as shared
from fl_shared.cli.completion import names_of
from fl_shared.errors import UserError


def _names() -> tuple[str, ...]:
    from fl_edge.tasks import registry

    return registry.names()


@shared.command(epilog=None)
@click.argument("name", metavar="[NAME]", required=False, shell_complete=names_of(_names))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tasks(name: str | None, as_json: bool) -> None:
    """List the tasks that are installed here, or the options of the task NAME."""
    from fl_edge.errors import UnknownTaskError
    from fl_edge.tasks import registry

    try:
        found = [_description(task) for task in ([name] if name else registry.names())]
    except UnknownTaskError as error:
        raise UserError(str(error)) from None
    if as_json:
        click.echo(json.dumps(found[0] if name else found))
        return
    for task in found:
        click.echo(f"{task['name']:16} {task['summary']}")
        if name:
            defaults = ", ".join(
                f"{key.replace('_', ' ')} {value:g}" for key, value in task["defaults"].items()
            )
            click.echo(f"{'':16} trained with {defaults}, unless the run says otherwise")
        for option in task["options"]:
            default = "required" if option["required"] else f"default {json.dumps(option['default'])}"
            click.echo(
                f"  --task-option {option['name']}=…  {option['help']} ({default})".replace("  (", " (")
            )
    if not name:
        click.echo(
            "\nsynthetic-N, for measuring, has N parameters. An option is set with --task-option KEY=VALUE."
        )


def _description(name: str) -> dict[str, Any]:
    from dataclasses import asdict

    from fl_edge.tasks.registry import task_class

    try:
        kind = task_class(name)
    except ImportError as error:  # the task needs a package that is not installed
        return {"name": name, "summary": f"cannot be loaded here: {error}", "options": [], "defaults": {}}
    options = [
        {
            "name": option,
            "required": field.is_required(),
            "default": None if field.is_required() else field.get_default(call_default_factory=True),
            "help": field.description or "",
        }
        for option, field in kind.Options.model_fields.items()
    ]
    summary = (kind.__doc__ or "").strip().splitlines()[0] if kind.__doc__ else ""
    return {"name": name, "summary": summary, "options": options, "defaults": asdict(kind.defaults)}
