"""What a shell completes for the settings of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from fl_shared.cli.completion import Completer, names_of


def _strategies() -> Iterable[str]:
    from fl_aggregator.aggregation.strategies.presets import PRESETS

    return sorted(PRESETS)


def _parts(kind: str) -> Iterable[str]:
    from fl_aggregator.aggregation.strategies import registry

    return registry.names(kind)


def _tasks(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
    """Completes as the command ``tasks`` does, if there is one: the aggregator itself knows no task."""
    groups: list[click.Command] = [ctx.find_root().command]
    while groups:
        group = groups.pop()
        if not isinstance(group, click.Group):
            continue
        if (tasks := group.commands.get("tasks")) is not None:
            return tasks.params[0].shell_complete(ctx, incomplete)
        groups += group.commands.values()
    return []


COMPLETERS: Final[Mapping[str, Completer]] = {
    "task": _tasks,
    "strategy": names_of(_strategies),
    "combine": names_of(partial(_parts, "combine")),
    "server_optimizer": names_of(partial(_parts, "server-optimizer")),
    "transform": names_of(partial(_parts, "transform")),
    "correct": names_of(partial(_parts, "correct")),
}
"""By setting."""
