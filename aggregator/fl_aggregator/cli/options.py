"""The options of a run, which ``start`` and ``simulate`` share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import click
from click.core import ParameterSource

from fl_aggregator.cli.completion import COMPLETERS
from fl_shared.cli import options as shared
from fl_shared.cli.headings import OUTPUT, RUN, GroupedOption, option_under
from fl_shared.errors import UserError

Command = Callable[..., Any]

EXISTING_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


def settings_options(without: Collection[str] = (), **defaults: Any) -> list[click.Parameter]:
    """Returns an option for each setting of a run, except those ``without``; ``Settings`` checks the values.

    ``defaults`` replace those of ``Settings``.
    """
    from fl_aggregator.configuration.settings import Settings, options_of_run

    made: list[click.Parameter] = []
    for name, option in options_of_run().items():
        if name in without:
            continue
        field = Settings.model_fields[name]
        if get_origin(field.annotation) is dict:
            pairs = {"metavar": shared.KEY_VALUE, "multiple": True, "callback": shared.key_values}
            made.append(GroupedOption([_flag(name)], heading=option.heading, help=option.help, **pairs))
            continue
        kind = _type_of(field.annotation)
        several = get_origin(field.annotation) is tuple
        made.append(
            GroupedOption(
                [_flag(name)],
                heading=option.heading,
                help=option.help,
                type=kind,
                is_flag=kind is click.BOOL,
                metavar=option.metavar,
                multiple=several,
                default=defaults.get(name, field.default if option.default is None else None),
                show_default=option.default or not several,
                shell_complete=COMPLETERS.get(name),
            )
        )
    return made


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _type_of(annotation: Any) -> click.ParamType[Any]:
    """Returns click's type for the type of a field; ``X | None`` gives the same as ``X``."""
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    kinds: dict[Any, click.ParamType[Any]] = {
        bool: click.BOOL,
        int: click.INT,
        float: click.FLOAT,
        str: click.STRING,
    }
    if get_origin(annotation) is tuple:
        return _type_of(get_args(annotation)[0])
    parts = (annotation, *map(_plain, get_args(annotation)))
    if choice := next((part for part in parts if get_origin(part) is Literal), None):
        return _type_of(choice)
    return next(kinds[kind] for kind in parts if kind in kinds)


def _plain(annotation: Any) -> Any:
    """Returns the type in ``Annotated[type, …]``, or the annotation itself."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def run_options(command: Command) -> Command:
    """Adds ``--init``, ``--resume`` and ``--run-dir``: what a run begins with, and where it is written."""
    options = [
        option_under(RUN, "--init", type=EXISTING_FILE, default=None,
                     help="Initial weights instead of an edge's: a model of a run, or a state_dict (safetensors)."),
        option_under(RUN, "--resume", metavar="DIR", type=click.Path(path_type=Path), default=None,
                     help="Continue the run in DIR, with the settings stored there."),
        option_under(OUTPUT, "--run-dir", type=click.Path(path_type=Path), default=None,
                     show_default="runs/<task>-<time>", help="New directory for the run's files."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def program_options(command: Command) -> Command:
    """Adds the options of each command that runs an aggregator: how it connects, what it logs, ``--config``."""
    options = [
        shared.quiet_option,
        shared.broker_options,
        shared.revoked_option,
        shared.client_id_option,
        shared.logging_options,
        shared.config_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def refuse_with_resume(*others: str) -> None:
    """Raises ``UserError`` if an option is given that a resumed run has stored; ``others`` names others.

    Called within a click command.
    """
    from fl_aggregator.configuration.settings import Settings, options_of_run

    changeable = {name for name, option in options_of_run().items() if option.at_resume}
    fixed = {"init", "run_dir", *others, *Settings.model_fields} - changeable
    context = click.get_current_context()
    for option in context.command.params:
        if option.name in fixed and context.get_parameter_source(option.name) == ParameterSource.COMMANDLINE:
            raise UserError(f"{option.opts[-1]} cannot be combined with --resume: settings cannot change")
