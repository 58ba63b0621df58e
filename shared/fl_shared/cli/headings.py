"""Commands whose help groups options under headings. It imports only click and the standard library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from fl_shared.cli.environment import variable_of, warn_of_misspelt_options

OPTIONS: Final = "Options"
"""The heading of options that have none of their own."""
RUN: Final = "The run"
EDGE: Final = "The edge"
DATA: Final = "Data"
TRAINING: Final = "Training"
ROUNDS: Final = "Rounds"
EVALUATION: Final = "Evaluation"
BROKER: Final = "The broker"
OUTPUT: Final = "What is written"
SECURITY: Final = "Security"
PRIVACY: Final = "Privacy"
OTHER: Final = "Other"
"""For options that end the command or are read first: ``--help``, ``--version``, ``--config``."""

HEADINGS: Final = (
    OPTIONS,
    RUN,
    EDGE,
    DATA,
    TRAINING,
    ROUNDS,
    EVALUATION,
    BROKER,
    OUTPUT,
    SECURITY,
    PRIVACY,
    OTHER,
)
"""All headings, in the order of a command's help."""

EMPTY: Final = "'' is empty; expected a value"

GIVEN: Final = f"{__name__}.given"
"""The key in a context's ``meta`` of what the command line gives, by parameter and unconverted."""
_WHOLE: Final = 1_000
"""Characters of a command's summary in a list of commands: enough for its whole first sentence."""


class GroupedOption(click.Option):
    """An option that the help shows under ``heading``, one of `HEADINGS`."""

    def __init__(self, *args: Any, heading: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.heading = heading


class GroupedCommand(click.Command):
    """A command whose help groups options under headings.

    ``more`` makes options that come before the others; it is called when the command is used. It can import a
    slow module, and the program's own help, which only lists commands, does not wait for that.
    """

    def __init__(
        self, *args: Any, more: Callable[[], Sequence[click.Parameter]] | None = None, **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self._more = more

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters of the command, with the options that ``more`` makes, each with its variable."""
        if self._more is not None:
            self.params[:0] = self._more()
            self._more = None
        params = super().get_params(ctx)
        for param in params:
            if isinstance(param, click.Option) and ctx.auto_envvar_prefix is not None and not param.envvar:
                param.envvar = variable_of(param, ctx.auto_envvar_prefix)
        return params

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments. Refuses empty ones: an empty path would be the current directory.

        Warns of options in the environment that may be misspelt.
        """
        if not ctx.resilient_parsing:
            warn_of_misspelt_options(ctx)
        given = self.make_parser(ctx).parse_args(list(args))[0]
        ctx.meta[GIVEN] = given
        for parameter in self.get_params(ctx):
            value = given.get(parameter.name or "")
            if value == "" or (isinstance(value, list | tuple) and "" in value):
                raise click.BadParameter(EMPTY, ctx, parameter)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options under their headings; without headings if there would be only one."""
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            if (row := parameter.get_help_record(ctx)) is not None:
                rows[heading_of(parameter)].append(row)
        shown = {heading: found for heading, found in rows.items() if found}
        for heading, found in shown.items():
            with formatter.section(heading if len(shown) > 1 else OPTIONS):
                formatter.write_dl(found)

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first sentence of the help, not cut off by a small ``limit``."""
        return super().get_short_help_str(max(limit, _WHOLE))


class CommandGroup(click.Group, GroupedCommand):
    """A command with subcommands."""

    command_class = GroupedCommand


def heading_of(parameter: click.Parameter) -> str:
    """The heading under which the help shows ``parameter``."""
    if isinstance(parameter, GroupedOption):
        return parameter.heading
    return OTHER if parameter.is_eager else OPTIONS


def option_under(
    heading: str, *names: str, **attributes: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator like `click.option`, for an option under a heading."""
    return click.option(*names, cls=GroupedOption, heading=heading, **attributes)
