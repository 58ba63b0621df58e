"""The options of a run, which ``start`` and ``simulate`` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from fl_shared.errors import UserError

Command = Callable[..., Any]


FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


def run_options(command: Command) -> Command:
    """What a run is told; the defaults are the reference workload. ``settings.Settings`` checks the values."""
    options = [
        click.option("--task", default="digits", help="What is learnt: a task that the edges have."),
        click.option("--clients", type=int, default=20, help="Training edges, and parts of the data."),
        click.option("--per-round", type=int, default=10, help="Updates wanted in a round."),
        click.option("--rounds", type=int, default=10, help="Versions of the model to be made."),
        click.option("--epochs", type=int, default=10, help="Local epochs in a round."),
        click.option("--strategy", default="fedavg", help="How updates become the next model."),
        click.option("--batch-size", type=int, default=32),
        click.option("--lr", type=float, default=0.05, help="Learning rate of the edges' SGD."),
        click.option("--lr-decay", type=float, default=1.0, help="Factor on it with every version."),
        click.option("--momentum", type=float, default=0.9),
        click.option("--partition", default="iid", help="iid, shards, dirichlet:ALPHA, quantity:ALPHA, or own."),
        click.option("--train-examples", type=int, default=None, show_default="all",
                     help="Use so many of the data set."),
        click.option("--holdout", type=float, default=0.2, help="Fraction of its part that an edge only evaluates on."),
        click.option("--evaluate-every", type=int, default=1, help="Versions; the last one always."),
        click.option("--target-accuracy", type=float, default=None,
                     help="End as soon as it is reached; with --holdout 0 only edges that evaluate measure it."),
        click.option("--deadline", type=float, default=600.0, help="Seconds a round may take."),
        click.option("--quorum", type=int, default=None, show_default="half of --per-round",
                     help="Updates a round needs."),
        click.option("--over-select", type=int, default=0, help="Edges selected beyond --per-round."),
        click.option("--wait", type=float, default=600.0, help="Seconds to wait for edges."),
        click.option("--seed", type=int, default=0),
        click.option("--max-examples", type=int, default=1_000_000, help="An update that claims more is rejected."),
        click.option("--max-delta", type=float, default=100.0, help="An update with a larger value is rejected."),
        click.option("--max-clients", type=int, default=None, show_default="10,000 beyond --clients",
                     help="Edges of all roles that are known at a time; names beyond that push out idle ones."),
        click.option("--durability", type=click.Choice(["process", "power", "memory"]), default="process",
                     help="What an accepted update survives: the end of the process, of power, or nothing."),
        # Larger packets are slower at the broker and at paho, and cost the broker a copy a subscriber.
        click.option("--chunk", type=click.IntRange(1024, 2**24), default=2**20, help="Bytes of a model's chunks."),
        click.option("--init", type=FILE, default=None, help="First weights (safetensors) instead of an edge's."),
        click.option("--run-dir", type=click.Path(path_type=Path), default=None, show_default="runs/<task>-<time>",
                     help="New directory for what the run writes."),
        click.option("--resume", metavar="DIR", type=click.Path(path_type=Path), default=None,
                     help="Go on with the run in DIR; its settings come from there."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def refuse_beside_resume(*more: str) -> None:
    """What a run was told at its start stands; to say it otherwise is a mistake."""
    from fl_aggregator.settings import Settings

    context = click.get_current_context()
    told = {"init", "run_dir", "durability", "chunk", "prefix", *Settings.model_fields, *more}
    for option in context.command.params:
        if option.name in told and context.get_parameter_source(option.name) == ParameterSource.COMMANDLINE:
            raise UserError(
                f"{option.opts[-1]} beside --resume: a run's settings stay as they were at its start"
            )
