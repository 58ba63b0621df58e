"""The commands that run something here: ``fl-aggregator start`` and ``simulate``. Heavy imports wait until one runs."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from fl_aggregator.monitoring.tracking.options import Tracking, tracking_options
from fl_shared.cli import options as shared
from fl_shared.cli import signals
from fl_shared.cli.logging import start_logging
from fl_shared.errors import RunFailed, UserError

if TYPE_CHECKING:
    from fl_aggregator.messaging.unsealing import Seals
    from fl_aggregator.server.aggregator import Aggregator, Outcome
    from fl_aggregator.server.launch import Launch
    from fl_aggregator.storage.spool import Durability
    from fl_shared.cli.broker_access import BrokerOptions, BrokerReach

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


@click.command(context_settings=shared.CONTEXT, epilog=shared.EPILOG)
@run_options
@tracking_options
@shared.quiet_option
@click.option("--grace", type=float, default=5.0, help="Seconds before a lost edge counts as gone.")
@shared.broker_options
@click.option("--mqtt-client-id", default=None, help="For brokers that bind ids to accounts.")
@click.option(
    "--require-sealed",
    is_flag=True,
    help="Take nothing from edges that they have not sealed (fl-edge --seal).",
)
@shared.logging_options
@shared.config_option
def start(
    broker: BrokerOptions,
    require_sealed: bool,
    mqtt_client_id: str | None,
    verbose: int,
    log_format: str,
    quiet: bool,
    init: Path | None,
    run_dir: Path | None,
    resume: Path | None,
    durability: Durability,
    chunk: int,
    tracking: Tracking,
    **values: Any,
) -> int:
    """Run the rounds with edges that connect to the broker by themselves."""
    from fl_aggregator.messaging.unsealing import Seals
    from fl_aggregator.server import launch as launches
    from fl_aggregator.settings import parse
    from fl_aggregator.tools.remote.cli import watch_command
    from fl_shared.mqtt.address import BrokerAddress

    start_logging(verbose, log_format, quiet=quiet)
    if resume is None:
        reach = broker.reach(roles=("aggregator",), mqtt_client_id=mqtt_client_id)
        seals = Seals(reach.kit, required=require_sealed)
        launch = launches.new(parse(**values, prefix=reach.prefix), run_dir, init, durability, chunk)
    else:
        _refuse_beside_resume()
        launch = launches.resume(resume, simulated=False)
        recorded = BrokerAddress.parse(launch.record.broker)
        reach = broker.reach(roles=("aggregator",), mqtt_client_id=mqtt_client_id, otherwise=recorded)
        require_sealed = require_sealed or launch.record.require_sealed
        seals = Seals(reach.kit, required=require_sealed)
        if reach.kit is not None and reach.prefix != launch.record.settings.prefix:
            raise UserError(
                f"--kit: its account has rights under the prefix {reach.prefix!r}, "
                f"and the run's is {launch.record.settings.prefix!r}"
            )
    if launch.record.settings.target_accuracy is not None and launch.record.settings.holdout == 0:
        # Not refused: nobody knows yet who will come.
        click.echo(
            "fl-aggregator: --target-accuracy with --holdout 0: only an edge with --role evaluate can measure it; "
            "without one the run goes on to the last of --rounds",
            err=True,
        )
    launch = launch.recording(require_sealed=require_sealed)
    hint = f"watch it: {watch_command(reach, launch.record.prefix)}"
    with (
        closing(launch),
        _run(launch, reach, tracking, log_format, quiet, broker.keys(), hint, seals) as (aggregator, finish),
    ):
        outcome = aggregator.run()
        finish(outcome)
    return _exit_code(outcome)


@click.command(context_settings=shared.CONTEXT, epilog=shared.EPILOG)
@run_options
@tracking_options
@shared.quiet_option
@click.option("--grace", type=float, default=0.0, help="Seconds before a lost edge counts as gone.")
@shared.broker_options_of_simulate
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the data set's files lie.",
)
@click.option("--device", default=None, show_default="cpu", help="Where edges train: cpu, cuda or auto.")
@click.option(
    "--workers", type=click.IntRange(1), default=None, show_default="one a core", help="Training processes."
)
@click.option("--predict", "picture", type=FILE, help="At the end ask the edges about this picture.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on standard output.")
@click.option("--stay", is_flag=True, help="After the run keep broker, edges and dashboard until Ctrl-C.")
@shared.logging_options
@shared.config_option
def simulate(
    broker: BrokerOptions,
    data: Path | None,
    device: str | None,
    workers: int | None,
    picture: Path | None,
    as_json: bool,
    stay: bool,
    verbose: int,
    log_format: str,
    quiet: bool,
    init: Path | None,
    run_dir: Path | None,
    resume: Path | None,
    durability: Durability,
    chunk: int,
    tracking: Tracking,
    **values: Any,
) -> int:
    """Run everything on this machine: a broker, all edges, and the aggregator."""
    from fl_aggregator import simulate as simulation
    from fl_aggregator.server import launch as launches
    from fl_aggregator.settings import parse
    from fl_aggregator.storage.run_directory import FleetRecord
    from fl_aggregator.tools.remote.cli import watch_command
    from fl_aggregator.tools.remote.predict import one_line
    from fl_shared.cli.broker_access import PREFIX

    start_logging(verbose, log_format, quiet=quiet)
    if broker.kit is not None:
        raise UserError("--kit: it is one account's, and simulate runs a fleet; expected --ca, --cert, --key")
    question = None if picture is None else picture.read_bytes()
    if resume is None:
        settings = parse(**values, prefix=broker.prefix or PREFIX)
        simulation.check_fleet_possible()
        _broker_of_fleet(broker, None if broker.broker is None else str(broker.broker))
        fleet = FleetRecord(
            broker=None if broker.broker is None else str(broker.broker),
            data=data, device=device, workers=workers,
        )  # fmt: skip
        launch = launches.new(settings, run_dir, init, durability, chunk, fleet)
    else:
        _refuse_beside_resume("broker", "data", "device", "workers")
        simulation.check_fleet_possible()
        launch = launches.resume(resume, simulated=True)
    settings, directory = launch.record.settings, launch.directory.path
    assert launch.record.fleet is not None
    fleet = launch.record.fleet
    with (
        closing(launch),
        simulation.Simulation(directory, _broker_of_fleet(broker, fleet.broker), broker) as sim,
    ):
        page = sim.serve_dashboard(settings)
        if not quiet:
            click.echo(f"broker: {sim.broker.address}")
            click.echo(f"watch it: {watch_command(sim.broker, settings.prefix)}")
            if page is not None:
                click.echo(f"dashboard: {page}")
        with _run(launch, sim.broker, tracking, log_format, quiet, broker.keys()) as (aggregator, finish):
            sim.start_fleet(settings, fleet)
            outcome = sim.run(aggregator)
            code = _exit_code(outcome)
            answer = sim.predict(settings, question) if code == 0 and question is not None else None
            finish(outcome)
        if answer is not None:
            click.echo(one_line(answer))
        if as_json:
            click.echo(json.dumps(_result(aggregator, outcome, directory)))
        if answer is not None and answer.error is not None:
            raise RunFailed(f"the prediction failed: {answer.error}")
        if stay and code == 0:
            click.echo("the broker, the edges and the dashboard stay until Ctrl-C", err=True)
            sim.stay()
    return code


# --- what start and simulate have in common -----------------------------------------------------------------


def _broker_of_fleet(broker: BrokerOptions, address: str | None) -> BrokerReach | None:
    """How a simulation reaches the broker at ``address``; null for one of its own."""
    from fl_shared.mqtt.address import BrokerAddress

    if address is not None:
        return broker.reach(otherwise=BrokerAddress.parse(address))
    if keys := broker.keys():
        raise UserError(f"{keys[0]} without --broker: a simulation's own broker has no certificates")
    return None


def _refuse_beside_resume(*more: str) -> None:
    """What a run was told at its start stands; to say it otherwise is a mistake."""
    from fl_aggregator.settings import Settings

    context = click.get_current_context()
    told = {"init", "run_dir", "durability", "chunk", "prefix", *Settings.model_fields, *more}
    for option in context.command.params:
        if option.name in told and context.get_parameter_source(option.name) == ParameterSource.COMMANDLINE:
            raise UserError(
                f"{option.opts[-1]} beside --resume: a run's settings stay as they were at its start"
            )


@contextmanager
def _run(
    launch: Launch,
    broker: BrokerReach,
    tracking: Tracking,
    log_format: str,
    quiet: bool,
    keys: list[str],
    hint: str = "",
    seals: Seals | None = None,
) -> Iterator[tuple[Aggregator, Callable[[Outcome], None]]]:
    """An aggregator, shown on stderr and to trackers, ended by the first Ctrl-C; and how to sum it up."""
    from rich.console import Console

    from fl_aggregator import farewell
    from fl_aggregator.monitoring.terminal.display import Display
    from fl_aggregator.monitoring.terminal.render import WIDE, table
    from fl_aggregator.server.aggregator import Aggregator
    from fl_aggregator.storage import run_directory
    from fl_shared.system.malloc import keep_freed_memory

    keep_freed_memory()
    console = Console(stderr=True)
    display = Display(
        console, launch.record.run, live=console.is_terminal and log_format == "text" and not quiet, hint=hint
    )
    trackers = tracking.trackers(launch.directory.path)
    aggregator = Aggregator(launch, broker, seals=seals, observer=display.observe, trackers=trackers)
    display.follow(aggregator)
    _end_on_signals(aggregator)

    def finish(outcome: Outcome) -> None:
        display.stop()
        directory = launch.directory.path
        resume = farewell.how_to_resume(click.get_current_context().command_path, outcome, directory, keys)
        verdict = farewell.verdict(outcome, display.waiting.refused)
        if quiet:
            click.echo(verdict if resume is None else f"{verdict}; resume with: {resume}")
            return
        recent = aggregator.curves.recent()
        if (earlier := aggregator.curves.count - len(recent)) > 0:
            click.echo(f"{earlier} earlier rounds: see {directory / run_directory.HISTORY}")
        if recent:
            wide = None if sys.stdout.isatty() else WIDE
            out = Console(file=sys.stdout, highlight=False, width=wide)
            out.print(table(recent.values(), narrow=out.width < WIDE))
        if refused := aggregator.refusals.total:
            click.echo(farewell.refused_line(refused))
        click.echo(verdict)
        for line in farewell.written(directory):
            click.echo(line)
        if resume is not None:
            click.echo(f"resume with: {resume}")

    with trackers, display:
        yield aggregator, finish


def _end_on_signals(aggregator: Aggregator) -> None:
    """The first Ctrl-C (or SIGTERM) ends the run in order.

    Before there is a run and after it, it unwinds: nothing is left that would have to be kept.
    """

    def first(number: signal.Signals) -> None:
        if not aggregator.running:
            raise KeyboardInterrupt
        aggregator.interrupt(f"interrupted by {number.name}")

    signals.end_on_signals(first)


def _exit_code(outcome: Outcome) -> int:
    from fl_aggregator.round.state import Finished, Stopped

    if isinstance(outcome.state.phase, Finished):
        return 0
    return signals.INTERRUPTED if isinstance(outcome.state.phase, Stopped) else RunFailed.exit_code


def _result(aggregator: Aggregator, outcome: Outcome, directory: Path) -> dict[str, Any]:
    """The last line of ``simulate --json``."""
    from fl_aggregator.storage.checkpoint import sha256

    model = directory / "model.safetensors"
    return {
        "run": aggregator.scope.run,
        "rounds": outcome.state.version,
        "accuracy": outcome.state.metrics.get("accuracy"),
        "loss": outcome.state.metrics.get("loss"),
        "model_sha256": sha256(model) if model.exists() else None,
        "seconds": round(outcome.seconds, 3),
        "refused": aggregator.refusals.total,
        "run_dir": str(directory),
    }
