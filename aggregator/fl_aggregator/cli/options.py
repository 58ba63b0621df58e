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
        click.option("--task", default="digits", help="Task to train; must be installed on the edges."),
        click.option("--clients", type=int, default=20,
                     help="Number of training edges and of partitions of the data."),
        click.option("--per-round", type=int, default=10, help="Updates to collect in each round."),
        click.option("--rounds", type=int, default=10, help="Versions of the model to make."),
        click.option("--epochs", type=int, default=10, help="Local epochs per round."),
        click.option("--strategy", default="fedavg", help="How updates are combined into the next model."),
        click.option("--batch-size", type=int, default=32, help="Examples per batch on the edges."),
        click.option("--lr", type=float, default=0.05, help="Learning rate of the edges' SGD."),
        click.option("--lr-decay", type=float, default=1.0,
                     help="Multiply the learning rate by this after each version."),
        click.option("--momentum", type=float, default=0.9, help="Momentum of the edges' SGD."),
        click.option("--partition", default="iid", help="Split: iid, shards, dirichlet:ALPHA, quantity:ALPHA or own."),
        click.option("--train-examples", type=int, default=None, show_default="all",
                     help="Use only this many examples of the data set."),
        click.option("--holdout", type=float, default=0.2,
                     help="Fraction of its data that an edge only evaluates on."),
        click.option("--evaluate-every", type=int, default=1, help="Evaluate every N versions (always the last)."),
        click.option("--target-accuracy", type=float, default=None,
                     help="Stop at this accuracy; with --holdout 0, only edges with --role evaluate measure it."),
        click.option("--deadline", type=float, default=600.0, help="Maximum duration of a round, in seconds."),
        click.option("--quorum", type=int, default=None, show_default="half of --per-round",
                     help="Minimum number of updates in a round."),
        click.option("--over-select", type=int, default=0, help="Extra edges to select beyond --per-round."),
        click.option("--wait", type=float, default=600.0, help="Seconds to wait for enough edges."),
        click.option("--seed", type=int, default=0, help="Seed of all random choices."),
        click.option("--max-examples", type=int, default=1_000_000, help="Reject updates that report more examples."),
        click.option("--max-delta", type=float, default=100.0, help="Reject updates that contain a larger value."),
        click.option("--max-clients", type=int, default=None, show_default="10,000 beyond --clients",
                     help="Maximum number of known edges, in all roles; idle ones are forgotten to make room."),
        click.option("--durability", type=click.Choice(["process", "power", "memory"]), default="process",
                     help="What an accepted update survives: a crash of the process, a power failure, or neither."),
        # Larger packets are slower at the broker and at paho, and cost the broker a copy a subscriber.
        click.option("--chunk", type=click.IntRange(1024, 2**24), default=2**20,
                     help="Chunk size of a model, in bytes."),
        click.option("--init", type=FILE, default=None, help="Initial weights (safetensors) instead of an edge's."),
        click.option("--run-dir", type=click.Path(path_type=Path), default=None, show_default="runs/<task>-<time>",
                     help="New directory for the run's files."),
        click.option("--resume", metavar="DIR", type=click.Path(path_type=Path), default=None,
                     help="Continue the run in DIR, with the settings stored there."),
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
                f"{option.opts[-1]} cannot be combined with --resume: a run's settings cannot change"
            )
