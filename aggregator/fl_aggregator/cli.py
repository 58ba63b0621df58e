"""``fl-aggregator``: start, simulate, predict. Heavy imports wait until a command runs."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from fl_shared import options as shared
from fl_shared.errors import RunFailed, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from fl_aggregator.checkpoint import Model
    from fl_aggregator.links import BrokerSettings
    from fl_aggregator.runtime import Aggregator, Outcome
    from fl_aggregator.settings import Settings
    from fl_aggregator.spool import Durability
    from fl_shared.broker_url import BrokerAddress

Command = Callable[..., Any]

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@shared.version_option
def cli() -> None:
    """Federated learning over the MQTT broker that you already run."""


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
        click.option("--target-accuracy", type=float, default=None, help="End as soon as it is reached."),
        click.option("--deadline", type=float, default=600.0, help="Seconds a round may take."),
        click.option("--quorum", type=int, default=None, show_default="half of --per-round",
                     help="Updates a round needs."),
        click.option("--over-select", type=int, default=0, help="Edges selected beyond --per-round."),
        click.option("--wait", type=float, default=600.0, help="Seconds to wait for edges."),
        click.option("--seed", type=int, default=0),
        click.option("--max-examples", type=int, default=1_000_000, help="An update that claims more is rejected."),
        click.option("--max-delta", type=float, default=100.0, help="An update with a larger value is rejected."),
        click.option("--durability", type=click.Choice(["process", "power", "memory"]), default="process",
                     help="What an accepted update survives: the end of the process, of power, or nothing."),
        click.option("--chunk", type=click.IntRange(1024, 2**27), default=2**20, help="Bytes of a model's chunks."),
        click.option("--init", type=FILE, default=None, help="First weights (safetensors) instead of an edge's."),
        click.option("--run-dir", type=click.Path(path_type=Path), default=None, show_default="runs/<task>-<time>",
                     help="New directory for what the run writes."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@cli.command(context_settings=shared.CONTEXT, epilog=shared.EPILOG)
@run_options
@click.option("--grace", type=float, default=5.0, help="Seconds before a lost edge counts as gone.")
@shared.broker_options
@click.option("--mqtt-client-id", default=None, help="For brokers that bind ids to accounts.")
@shared.logging_options
@shared.config_option
def start(
    broker: BrokerAddress,
    password_file: Path | None,
    keepalive: int,
    mqtt_client_id: str | None,
    verbose: int,
    log_format: str,
    init: Path | None,
    run_dir: Path | None,
    durability: Durability,
    chunk: int,
    **values: Any,
) -> int:
    """Run the rounds with edges that connect to the broker by themselves."""
    from fl_aggregator.links import BrokerSettings
    from fl_aggregator.settings import parse

    shared.start_logging(verbose, log_format)
    settings = parse(**values)
    password = shared.read_password(password_file)
    reach = BrokerSettings(broker, password, keepalive, mqtt_client_id)
    with _run(settings, reach, init, run_dir, durability, chunk) as (aggregator, console, finish):
        console.print(f"run {aggregator.scope.run} at {broker}, prefix {settings.prefix}", highlight=False)
        outcome = aggregator.run()
        finish(outcome)
    return _exit_code(outcome)


@cli.command(context_settings=shared.CONTEXT, epilog=shared.EPILOG)
@run_options
@click.option("--grace", type=float, default=0.0, help="Seconds before a lost edge counts as gone.")
@click.option("--broker", metavar="URL", default=None, show_default="a mosquitto of its own",
              help="Use this broker: mqtt://[user@]host[:port].")  # fmt: skip
@click.option("--password-file", type=FILE, help="File with the broker's password (instead of FL_PASSWORD).")
@click.option(
    "--prefix",
    metavar="TOPIC",
    default="fl",
    callback=shared.topic_prefix,
    help="What all topics begin with.",
)
@click.option("--keepalive", type=click.IntRange(1, 65_535), default=30, help="Seconds.")
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
@shared.logging_options
@shared.config_option
def simulate(
    broker: str | None,
    password_file: Path | None,
    keepalive: int,
    data: Path | None,
    device: str | None,
    workers: int | None,
    picture: Path | None,
    as_json: bool,
    verbose: int,
    log_format: str,
    init: Path | None,
    run_dir: Path | None,
    durability: Durability,
    chunk: int,
    **values: Any,
) -> int:
    """Run everything on this machine: a broker, all edges, and the aggregator."""
    from fl_aggregator import rundir
    from fl_aggregator import simulate as simulation
    from fl_aggregator.links import BrokerSettings
    from fl_aggregator.predict import one_line
    from fl_aggregator.settings import parse
    from fl_shared.broker_url import BrokerAddress

    shared.start_logging(verbose, log_format)
    settings = parse(**values)
    simulation.check_fleet_possible()
    given = None
    if broker is not None:
        given = BrokerSettings(BrokerAddress.parse(broker), shared.read_password(password_file), keepalive)
    directory = run_dir if run_dir is not None else rundir.fresh(settings.task)
    question = None if picture is None else picture.read_bytes()
    with simulation.Simulation(directory, given, keepalive) as sim:
        click.echo(f"broker: {sim.broker.address}")
        with _run(settings, sim.broker, init, directory, durability, chunk) as (aggregator, _, finish):
            sim.start_fleet(settings, simulation.Fleet(data, device, workers))
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
    return code


@cli.command(context_settings=shared.CONTEXT, epilog=shared.EPILOG)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--client", default=None, help="Ask this edge instead of any.")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600.0), default=30.0, help="Seconds to wait for the answer."
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as it came.")
@shared.broker_options
@shared.config_option
def predict(
    file: Path,
    client: str | None,
    timeout: float,
    as_json: bool,
    broker: BrokerAddress,
    password_file: Path | None,
    prefix: str,
    keepalive: int,
) -> int:
    """Ask the edges about FILE: a PNG or JPEG picture, or JSON ({"pixels": …}); - is standard input."""
    from fl_aggregator.links import BrokerSettings
    from fl_aggregator.predict import Request, ask, one_line
    from fl_shared.topics import valid_client

    if client is not None and not valid_client(client):
        raise UserError(f"--client {client!r}: expected 1 to 64 of A-Z a-z 0-9 _ -")
    payload = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    reach = BrokerSettings(broker, shared.read_password(password_file), keepalive)
    answer = ask(reach, Request(payload, prefix, client), timeout)
    click.echo(answer.model_dump_json() if as_json else one_line(answer))
    return 0 if answer.error is None else RunFailed.exit_code


# --- what start and simulate have in common -----------------------------------------------------------------


@contextmanager
def _run(
    settings: Settings,
    broker: BrokerSettings,
    init: Path | None,
    run_dir: Path | None,
    durability: Durability,
    chunk: int,
) -> Iterator[tuple[Aggregator, Console, Callable[[Outcome], None]]]:
    """An aggregator in its run directory, shown on stderr, ended by the first Ctrl-C; and how to sum it up."""
    from rich.console import Console

    from fl_aggregator import rundir
    from fl_aggregator.checkpoint import read_safetensors
    from fl_aggregator.display import Display, table
    from fl_aggregator.runtime import Aggregator
    from fl_shared.memory_pool import keep_freed_memory

    keep_freed_memory()
    first_weights: Model | None = None if init is None else read_safetensors(init)
    directory = rundir.RunDirectory(
        run_dir if run_dir is not None else rundir.fresh(settings.task), durability
    )
    console = Console(stderr=True)
    display = Display(console)
    try:
        aggregator = Aggregator(
            settings,
            broker,
            directory,
            first_weights=first_weights,
            chunk_size=chunk,
            observer=display.observe,
        )
        _end_on_signals(aggregator)

        def finish(outcome: Outcome) -> None:
            display.stop()
            if display.summaries:
                Console(file=sys.stdout, highlight=False).print(table(display.summaries))
            click.echo(_verdict(outcome))
            click.echo(f"written to {directory.path}")

        with display:
            yield aggregator, console, finish
    finally:
        directory.close()


def _end_on_signals(aggregator: Aggregator) -> None:
    """The first Ctrl-C (or SIGTERM) ends the run in order, the second one at once."""
    asked = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            _at_once()
        asked = True
        aggregator.interrupt(f"interrupted by {signal.Signals(number).name}")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


def _at_once() -> NoReturn:
    os._exit(shared.INTERRUPTED)


def _verdict(outcome: Outcome) -> str:
    from fl_aggregator.phases import Failed, Finished, Stopped

    state = outcome.state
    versions = f"{state.version} of {state.settings.rounds} versions in {outcome.seconds:.1f} s"
    accuracy = state.metrics.get("accuracy")
    reached = "" if accuracy is None else f", accuracy {accuracy:.4f}"
    match state.phase:
        case Finished(reason=reason):
            early = "" if reason == "rounds" else " (the target accuracy is reached)"
            return f"finished: {versions}{reached}{early}"
        case Failed(detail=detail):
            return f"failed: {versions}{reached}: {detail}"
        case Stopped(reason=reason):
            return f"stopped: {versions}{reached}: {reason}"
        case _:
            return versions


def _exit_code(outcome: Outcome) -> int:
    from fl_aggregator.phases import Finished, Stopped

    if isinstance(outcome.state.phase, Finished):
        return 0
    return shared.INTERRUPTED if isinstance(outcome.state.phase, Stopped) else RunFailed.exit_code


def _result(aggregator: Aggregator, outcome: Outcome, directory: Path) -> dict[str, Any]:
    """The last line of ``simulate --json``."""
    from fl_aggregator.checkpoint import sha256

    model = directory / "model.safetensors"
    return {
        "run": aggregator.scope.run,
        "rounds": outcome.state.version,
        "accuracy": outcome.state.metrics.get("accuracy"),
        "loss": outcome.state.metrics.get("loss"),
        "model_sha256": sha256(model) if model.exists() else None,
        "seconds": round(outcome.seconds, 3),
        "run_dir": str(directory),
    }


def main() -> NoReturn:
    """The console script."""
    shared.main(cli, "fl-aggregator")


if __name__ == "__main__":
    main()
