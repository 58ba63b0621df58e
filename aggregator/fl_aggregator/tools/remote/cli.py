"""The commands that read a run over the broker. Functions import what is slow to import."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fl_shared.cli import options as shared
from fl_shared.cli.broker_access import DEFAULT_PREFIX
from fl_shared.errors import RunFailed, UserError
from fl_shared.system.invocation import aggregator_command

if TYPE_CHECKING:
    from fl_shared.cli.broker_access import BrokerAccess, BrokerOptions
    from fl_shared.protocol.messages import LogLevel

WAIT_RANGE = shared.FiniteRange(0.1, 86_400.0)


def watch_command(access: BrokerAccess, prefix: str, options: BrokerOptions) -> str:
    """The command line that watches a run from another terminal, with the files that ``options`` name."""
    if options.kit is not None:
        kit = options.kit.with_name("operator.zip")
        if kit.exists():
            return aggregator_command("watch", "--kit", kit)
        return f"{aggregator_command('watch', '--kit')} with the operator's kit"
    under = [] if prefix == DEFAULT_PREFIX else ["--prefix", prefix]
    return aggregator_command(
        "watch", "--broker", access.address, *options.all_credential_arguments(), *under
    )


@shared.command()
@click.option("--wait", type=WAIT_RANGE, default=None, show_default="5; with --check 8",
              help="Seconds to wait for a status.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the curves and all edges.")
@click.option("--check", is_flag=True, help="For health checks: print nothing and exit with 0 if a run is online and "
              "reported in the last 15 s, else exit with 1 (never 2).")  # fmt: skip
@shared.broker_options
@shared.config_option
def status(wait: float | None, as_json: bool, check: bool, broker: BrokerOptions) -> int:
    """Show the run under a prefix once, whether or not its aggregator is running."""
    from fl_aggregator.tools.remote import health
    from fl_aggregator.tools.remote import status as looking
    from fl_aggregator.tools.remote.sighting import as_json as fields_of_sight

    if check and as_json:
        raise UserError("--check cannot be combined with --json")
    if check:
        health.check(broker, wait or 8.0)
        return 0
    observed = looking.observe_run(broker.access(), wait or 5.0)
    if as_json:
        click.echo(json.dumps(fields_of_sight(observed, full=True)))
        return 0
    for line in looking.status_lines(observed):
        click.echo(line)
    return 0


@shared.command()
@click.option("--wait", type=WAIT_RANGE, default=None, show_default="5; also shows a run that has ended",
              help="Seconds to wait for a run that has not ended.")  # fmt: skip
@click.option("--give-up", type=WAIT_RANGE, default=600.0,
              help="Exit with 1 after this many seconds without the broker or the aggregator.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@shared.broker_options
@shared.config_option
def watch(
    wait: float | None,
    give_up: float,
    as_json: bool,
    broker: BrokerOptions,
) -> int:
    """Follow the run under a prefix until it ends; the exit code is the run's: 0, 1, or 130 if it was stopped."""
    from rich.console import Console

    from fl_aggregator.tools.remote import watch

    return watch.watch(broker.access(), wait, give_up, as_json=as_json, console=Console())


@shared.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--client", default=None, help="Ask this edge instead of any edge.")
@click.option(
    "--timeout", type=shared.FiniteRange(0.1, 3600.0), default=30.0, help="Seconds to wait for the answer."
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as received, as JSON.")
@shared.broker_options
@shared.config_option
def predict(
    file: Path,
    client: str | None,
    timeout: float,
    as_json: bool,
    broker: BrokerOptions,
) -> int:
    """Ask the edges for a prediction from FILE; - is standard input.

    FILE is a request as the run's task reads it: a PNG or JPEG picture, or JSON.
    """
    from fl_aggregator.tools.remote.predict import Request, prediction_line, request_prediction

    if client is not None:
        shared.check_client(client, "--client")
    payload = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    access = broker.access(roles=("asker",))
    answer = request_prediction(access, Request(payload, access.prefix, client), timeout)
    click.echo(answer.model_dump_json() if as_json else prediction_line(answer))
    return 0 if answer.error is None else RunFailed.exit_code


@shared.command()
@click.argument("client", metavar="ID")
@click.option("--level", type=click.Choice(("debug", "info", "warning", "error")), default="info",
              help="Lowest level of the lines to show; edges log debug lines only with --verbose.")  # fmt: skip
@click.option(
    "--recent", type=click.IntRange(0, 200), default=50, help="Number of earlier lines to show first."
)
@click.option("--follow", is_flag=True, help="Continue with new lines, until Ctrl-C.")
@click.option(
    "--seconds", type=shared.FiniteRange(0.1, 86_400.0), default=None, help="Follow for this many seconds."
)
@click.option("--wait", type=WAIT_RANGE, default=10.0, help="Seconds to wait for the first answer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@shared.broker_options
@shared.config_option
def logs(
    client: str,
    level: LogLevel,
    recent: int,
    follow: bool,
    seconds: float | None,
    wait: float,
    as_json: bool,
    broker: BrokerOptions,
) -> None:
    """Show the log of the edge ID: its recent lines and, with --follow or --seconds, new ones."""
    from fl_aggregator.tools.remote.logs import json_objects, read_log, text_lines

    shared.check_client(client, "ID")
    if follow and seconds is not None:
        raise UserError("--follow cannot be combined with --seconds")
    access = broker.access(roles=("operator",))
    lasting = math.inf if follow else seconds
    for message in read_log(access, client, level, recent, lasting, wait):
        for shown in map(json.dumps, json_objects(message)) if as_json else text_lines(message):
            click.echo(shown)
