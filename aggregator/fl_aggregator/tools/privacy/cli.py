"""The commands ``fl-aggregator privacy DIR`` and ``fl-aggregator privacy plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from fl_shared.cli import options as shared
from fl_shared.cli.headings import CommandGroup
from fl_shared.errors import UserError

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all edges.")


class _OfRun(CommandGroup):
    """A group whose arguments are those of ``spent`` unless they begin with the name of another command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the command, and its arguments."""
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "spent", self.commands["spent"], args


@click.group(
    cls=_OfRun,
    context_settings={**shared.CONTEXT, "ignore_unknown_options": True},
    subcommand_metavar="[spent] DIR | plan",
)
def privacy() -> None:
    """Show what a private run has spent, or plan one."""


@privacy.command(context_settings=shared.CONTEXT)
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@_JSON
@shared.config_option
def spent(directory: Path, as_json: bool) -> None:
    """Show what the run in DIR has revealed about each edge: the releases, μ, ε.

    It only reads the journal, and changes nothing. The run may be in progress or have been killed.
    """
    from fl_aggregator.tools.privacy.ledger import read_ledger

    ledger = read_ledger(directory)
    if as_json:
        click.echo(json.dumps(ledger.fields()))
        return
    for line in ledger.lines():
        click.echo(line)


@privacy.command(context_settings=shared.CONTEXT)
@click.option("--clients", type=click.INT, required=True, help="Number of training edges.")
@click.option("--per-round", type=click.INT, required=True, help="Edges whose updates are in a version.")
@click.option("--rounds", type=click.INT, required=True, help="Versions that the run makes.")
@click.option("--epsilon", type=shared.FiniteRange(0, 100, min_open=True), required=True,
              help="Budget: ε of the whole run for each edge.")  # fmt: skip
@click.option("--delta", type=shared.FiniteRange(0, 1, min_open=True, max_open=True), default=None,
              show_default="10^-5, or --clients^-1.1", help="Probability with which ε may not hold.")  # fmt: skip
@click.option("--shared-parameters", type=click.IntRange(1, 10**12), default=None, show_default="not known",
              help="Values of the model that edges share.")  # fmt: skip
@click.option("--clip", type=shared.FiniteRange(1e-6, 1e6), default=None, show_default="not known",
              help="Greatest L2 norm of an update.")  # fmt: skip
@click.option("--apart", type=click.IntRange(1, 1_000_000), default=None, show_default="0.8 × --clients ÷ --per-round",
              help="An edge contributes to at most one of this many consecutive versions.")  # fmt: skip
@click.option("--times", type=click.IntRange(1, 1_000_000), default=None, show_default="as many as --apart allows",
              help="Versions that an edge contributes to, at most.")  # fmt: skip
@_JSON
@shared.config_option
def plan(as_json: bool, **values: Any) -> None:
    """Show how much noise a run would need, and whether its model could still learn.

    It compares independent noise, correlated noise, and secret cohorts.
    """
    from fl_aggregator.tools.privacy.planning import plans

    try:
        found = plans(**values)
    except ValueError as error:
        raise UserError(str(error)) from None
    if as_json:
        click.echo(json.dumps(found.fields()))
        return
    for line in found.lines():
        click.echo(line)
