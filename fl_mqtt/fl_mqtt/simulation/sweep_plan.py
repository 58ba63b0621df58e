"""Which runs a sweep has: ``--seeds`` and ``--sweep``, and the arguments of each run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from fl_aggregator.storage.sweep_record import MAX_RUNS, SweepRecord, SweptRun
from fl_shared.cli.headings import GIVEN
from fl_shared.errors import UserError

OPTIONS: Final = ("seeds", "sweep", "parallel")
"""The options of ``simulate`` that are about a sweep."""
OF_EACH_RUN: Final = ("run_dir", "resume", "seed", "as_json", "quiet", "verbose", "log_format")
"""Options that the sweep itself gives to each run."""
NOT_RECORDED: Final = (*OPTIONS, *OF_EACH_RUN, "config", "metrics_host")
"""Options that are not among the arguments of a run. Of ``--config`` the options in it are; no run serves metrics."""

Axes = dict[str, list[str]]
"""The values of each swept option, by its name as in ``Settings``, as the user wrote them."""


def parse_seeds(text: str) -> list[int]:
    """Parses ``0-4`` or ``0,3,7-9``. Raises ``UserError``."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,15})(?:-(\d{1,15}))?\s*", part)
        if found is None:
            raise UserError(
                f"--seeds: {text!r}: {part!r}, expected numbers and ranges, for example 0-4 or 0,3,7-9"
            )
        first = int(found[1])
        last = first if found[2] is None else int(found[2])
        if last < first:
            raise UserError(f"--seeds: {text!r}: {part!r} ends before it begins, expected {last}-{first}")
        if last - first >= MAX_RUNS:
            raise UserError(
                f"--seeds: {text!r}: {part!r} has {last - first + 1} seeds, expected at most {MAX_RUNS}"
            )
        seeds += range(first, last + 1)
    _refuse_twice("--seeds", text, list(map(str, seeds)))
    return seeds


def parse_axes(texts: Sequence[str], known: Collection[str]) -> Axes:
    """Parses values of ``--sweep``: ``NAME=VALUE,VALUE``, or ``NAME=VALUE;VALUE`` if values have commas.

    ``known``: the options that can be swept, by their names as in ``Settings``. Raises ``UserError``.
    """
    axes: Axes = {}
    for text in texts:
        option, sign, listed = text.partition("=")
        name = option.strip().removeprefix("--").replace("-", "_")
        values = [value.strip() for value in listed.split(";" if ";" in listed else ",")]
        if not sign or "" in values:
            raise UserError(f"--sweep: {text!r}: expected NAME=VALUE,VALUE,…, for example lr=0.01,0.03")
        if name in ("seed", "seeds"):
            raise UserError(f"--sweep: {text!r}: expected --seeds {listed}")
        if name not in known:
            can = ", ".join(sorted(one.replace("_", "-") for one in known))
            raise UserError(f"--sweep: {text!r}: {option!r} cannot be swept, expected one of: {can}")
        if name in axes:
            raise UserError(f"--sweep: {option} is given twice, expected all its values at once")
        _refuse_twice("--sweep", text, values)
        axes[name] = values
    return axes


def _refuse_twice(option: str, text: str, values: list[str]) -> None:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise UserError(f"{option}: {text!r} has {twice} twice, expected values that differ")


def settings_of(axes: Axes) -> list[dict[str, str]]:
    """Returns the product of all axes; one empty setting without any."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def plan(
    axes: Axes,
    seeds: Sequence[int],
    common: Sequence[str],
    arguments: Callable[[Mapping[str, str]], list[str]],
) -> SweepRecord:
    """Returns the runs: for each setting all seeds.

    ``common``: arguments of all runs. ``arguments``: makes those of a setting. Raises ``UserError`` for too many runs.
    """
    settings = settings_of(axes)
    if len(settings) * len(seeds) > MAX_RUNS:
        raise UserError(f"--sweep: {len(settings) * len(seeds)} runs, expected at most {MAX_RUNS}")
    runs: list[SweptRun] = []
    names: set[str] = set()
    for setting, seed in itertools.product(settings, seeds):
        shown = {name.replace("_", "-"): value for name, value in setting.items()}
        name = re.sub(
            r"[^A-Za-z0-9.=+-]", "_", "_".join([*(f"{k}={v}" for k, v in shown.items()), f"seed={seed}"])
        )
        name = name[:180]
        if name in names:
            name += f"_{len(runs)}"
        names.add(name)
        own = [*common, *arguments(setting), "--seed", str(seed)]
        runs.append(SweptRun(name=name, setting=shown, seed=seed, arguments=own))
    return SweepRecord(runs=runs)


def given_arguments(context: click.Context, without: Container[str]) -> list[str]:
    """Returns the arguments that say again what the command line, the environment and ``--config`` have given.

    The options `NOT_RECORDED` and ``without`` are left out.
    """
    arguments: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in NOT_RECORDED or name in without:
            continue
        value, source = parameter.consume_value(context, context.meta[GIVEN])
        if source != ParameterSource.DEFAULT:
            assert isinstance(parameter, click.Option)
            arguments += option_arguments(parameter, value)
    return arguments


def option_arguments(option: click.Option, value: Any) -> list[str]:
    """Returns the arguments that give ``value`` to an option; for a flag the value says whether it is set."""
    flag = option.opts[-1]
    if option.count:
        return [flag] * int(value)
    if option.is_flag:
        return [flag] if click.BOOL.convert(value, option, None) else option.secondary_opts[-1:]
    values = value if isinstance(value, list | tuple) else [value]
    return [word for one in values for word in (flag, _recorded(option, str(one)))]


def _recorded(option: click.Option, value: str) -> str:
    """Returns a path as an absolute one: a resume may be started elsewhere. A metavar may have names besides FILE."""
    *names, last = (option.metavar or "").split("|")
    is_path = isinstance(option.type, click.Path) or (last == "FILE" and value not in names)
    return str(Path(value).absolute()) if is_path else value
