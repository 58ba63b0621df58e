"""The commands that reach a run from afar: ``fl-aggregator predict`` and ``stop``. Heavy imports wait for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fl_shared.cli import options as shared
from fl_shared.cli.logging import start_logging
from fl_shared.errors import RunFailed, UserError

if TYPE_CHECKING:
    from fl_shared.cli.broker_access import BrokerOptions


@click.command(context_settings=shared.CONTEXT, epilog=shared.EPILOG)
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
    broker: BrokerOptions,
) -> int:
    """Ask the edges about FILE: a PNG or JPEG picture, or JSON ({"pixels": …}); - is standard input."""
    from fl_aggregator.predict import Request, ask, one_line
    from fl_shared.protocol.topics import valid_client

    if client is not None and not valid_client(client):
        raise UserError(f"--client {client!r}: expected 1 to 64 of A-Z a-z 0-9 _ -")
    payload = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    reach = broker.reach(roles=("asker",))
    answer = ask(reach, Request(payload, reach.prefix, client), timeout)
    click.echo(answer.model_dump_json() if as_json else one_line(answer))
    return 0 if answer.error is None else RunFailed.exit_code


@click.command(context_settings=shared.CONTEXT, epilog=shared.EPILOG)
@click.option(
    "--run", metavar="ID", default=None, show_default="whichever is online", help="End this run only."
)
@click.option("--reason", metavar="TEXT", default="", help="Told to whoever runs the aggregator.")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600.0), default=30.0, help="Seconds to wait for the run's end."
)
@shared.broker_options
@shared.logging_options
@shared.config_option
def stop(
    run: str | None,
    reason: str,
    timeout: float,
    broker: BrokerOptions,
    verbose: int,
    log_format: str,
) -> None:
    """End the run that is online, from anywhere: its round is kept, and its aggregator says how to resume."""
    from fl_aggregator.stop import stop as stop_run

    start_logging(verbose, log_format)
    reach = broker.reach(roles=("operator",))
    click.echo(stop_run(reach, run, reason, timeout))
