"""The options of ``fl-edge`` that say which edges run, and what they do. It is imported for ``--help``, too."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import click

from fl_shared.cli import options
from fl_shared.cli.completion import names_of
from fl_shared.cli.headings import EDGE, option_under
from fl_shared.protocol.topics import valid_client
from fl_shared.system.text import natural_order

ROLES: Final = ("train", "predict", "evaluate")
"""The roles of an edge, in the order in which they are listed."""
MAX_EDGES: Final = 10_000
"""The largest number of edges in one process."""


def edge_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options, passed as ``ids``, ``roles``, ``evaluator`` and ``task``."""
    for option in (
        option_under(
            EDGE,
            "--task",
            metavar="NAME",
            shell_complete=names_of(_tasks),
            show_default="the task that the aggregator announces",
            help="Train only this task.",
        ),
        option_under(
            EDGE,
            "--evaluator",
            metavar="ID",
            callback=checked_id,
            help="Add an edge with this id that only evaluates models on the test split.",
        ),
        option_under(
            EDGE,
            "--role",
            "roles",
            envvar="FL_ROLE",
            type=_Listed(),
            multiple=True,
            default=("train,predict",),
            metavar=f"{'|'.join(ROLES)}[,…]",
            callback=options.parsed(parse_roles),
            help="What the edge does: one or more of these.",
        ),
        option_under(
            EDGE,
            "--id",
            "ids",
            envvar="FL_ID",
            type=_Listed(),
            multiple=True,
            metavar="ID",
            callback=options.parsed(parse_ids),
            show_default="the kit's",
            help="The edge's id, or several: 0-19, or 0-4,9,lab-a. In a run of N, edge k < N gets partition k "
            "of the data.",
        ),
    ):
        command = option(command)
    return command


def parse_ids(values: tuple[str, ...]) -> tuple[str, ...]:
    """Expands options such as ``("0-4,9", "lab-a")``, with ids and ranges, in their order.

    Raises ``ValueError`` naming the item that is not valid, or that is given twice.
    """
    ids: list[str] = []
    for name in _items(values):
        range_match = re.fullmatch(r"(\d{1,9})-(\d{1,9})", name)
        if range_match is not None:
            first, last = int(range_match[1]), int(range_match[2])
            if last < first:
                raise ValueError(f"{name!r} ends before it begins; expected FIRST-LAST, for example 0-19")
            if last - first >= MAX_EDGES:
                raise ValueError(
                    f"{name!r} is {last - first + 1} edges; expected at most {MAX_EDGES} in one process"
                )
            ids += [str(number) for number in range(first, last + 1)]
        elif valid_client(name):
            ids.append(name)
        else:
            raise ValueError(
                f"{name!r} is not a valid id; expected 1 to 64 characters of A-Z a-z 0-9 _ -, or a range like 0-19"
            )
    duplicates = (
        natural_order({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    )
    if duplicates:
        raise ValueError(f"{duplicates[0]!r} is given twice; expected each id once")
    if len(ids) > MAX_EDGES:
        raise ValueError(f"{len(ids)} edges; expected at most {MAX_EDGES} in one process")
    return tuple(ids)


def parse_roles(values: tuple[str, ...]) -> tuple[str, ...]:
    """Splits options such as ``("train,predict",)`` into roles, in the order of `ROLES`.

    Raises ``ValueError`` naming a role that does not exist.
    """
    names = _items(values)
    for name in names:
        if name not in ROLES:
            raise ValueError(f"{name!r}; expected one or more of {', '.join(ROLES)}")
    return tuple(role for role in ROLES if role in names)


class _Listed(click.types.StringParamType):
    """A list in a text. In the environment, too, commas separate its items, and spaces beside them mean nothing."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def _items(values: tuple[str, ...]) -> list[str]:
    return [item.strip() for value in values for item in value.split(",")]


def checked_id(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Refuses what is no id (a callback of click)."""
    if value is not None and not valid_client(value):
        raise click.BadParameter(
            f"{value!r} is not a valid id; expected 1 to 64 characters of A-Z a-z 0-9 _ -"
        )
    return value


def _tasks() -> tuple[str, ...]:
    from fl_edge.tasks import registry

    return registry.names()
