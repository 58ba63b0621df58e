"""The variables that set options, and those that are misspelt. It imports only click and the standard library."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Final

import click

_SHORTEST: Final = 3
"""Characters of a name that is compared: shorter ones differ in one character by chance."""
_ALSO_READ: Final = frozenset({"FL_PASSWORD"})
"""What commands read that is no option."""


def variable_of(option: click.Option, prefix: str) -> str | None:
    """Returns the variable that sets an option: ``FL_PER_ROUND`` for ``--per-round``, whatever its parameter is.

    Null if none does: ``--help`` and ``--version``, and what has forbidden it (``allow_from_autoenv=False``).
    """
    if not option.allow_from_autoenv or (option.is_eager and option.is_flag):
        return None
    written = next(name for name in option.opts if name.startswith("--"))
    return f"{prefix}_{written.removeprefix('--').replace('-', '_').upper()}"


def misspelt_options(context: click.Context, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """The variables that no option of the command reads, but that are one slip away from one: each with that one.

    Others are left alone: a shell may hold options of several programs.
    """
    prefix = f"{context.auto_envvar_prefix}_"
    if context.auto_envvar_prefix is None:
        return []
    options = [option for option in context.command.get_params(context) if isinstance(option, click.Option)]
    names = {option.envvar for option in options if isinstance(option.envvar, str)} | _ALSO_READ
    unknown = sorted(name for name in environment if name.startswith(prefix) and name not in names)
    near = ((name, _one_slip_away(name, names, prefix)) for name in unknown)
    return [(name, meant) for name, meant in near if meant is not None]


def warn_of_misspelt_options(context: click.Context) -> None:
    """Says on standard error which variables of the environment may be misspelt."""
    for name, meant in misspelt_options(context, os.environ):
        click.echo(
            f"{context.command_path}: warning: {name} has no effect, since there is no such option; did you mean "
            f"{meant}?",
            err=True,
        )


def _one_slip_away(name: str, known: Collection[str], prefix: str) -> str | None:
    written = name.removeprefix(prefix).replace("_", "")
    for candidate in sorted(known):
        meant = candidate.removeprefix(prefix).replace("_", "")
        if max(len(written), len(meant)) >= _SHORTEST and _is_one_slip(written, meant):
            return candidate
    return None


def _is_one_slip(first: str, second: str) -> bool:
    """Whether the words differ in at most one letter more, fewer or other, or in two that have changed places."""
    same = _same_at_start(first, second)
    first, second = first[same:][::-1], second[same:][::-1]
    same = _same_at_start(first, second)
    first, second = first[same:], second[same:]
    return max(len(first), len(second)) <= 1 or (len(first) == 2 and first == second[::-1])


def _same_at_start(first: str, second: str) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))
