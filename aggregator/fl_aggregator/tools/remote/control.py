"""The commands that control a run over the broker. Functions import what is slow to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fl_shared.cli import options as shared
from fl_shared.cli.logging import start_logging

if TYPE_CHECKING:
    from fl_shared.cli.broker_access import BrokerOptions

TIMEOUT_RANGE = shared.FiniteRange(0.1, 3600.0)
ANSWER_TIMEOUT = click.option(
    "--timeout", type=TIMEOUT_RANGE, default=10.0, help="Seconds to wait for the answer of the aggregator."
)
REASON = click.option("--reason", metavar="TEXT", default="", help="Reason that the aggregator will log.")


@shared.command()
@click.option(
    "--run", metavar="ID", default=None, show_default="the run that is online", help="Pause only this run."
)
@REASON
@ANSWER_TIMEOUT
@shared.broker_options
@shared.logging_options
@shared.config_option
def pause(
    run: str | None, reason: str, timeout: float, broker: BrokerOptions, verbose: int, log_format: str
) -> None:
    """Pause the run that is online: its time stands still, and no round opens or closes until `resume`."""
    from fl_aggregator.tools.remote import command

    start_logging(verbose, log_format)
    click.echo(command.pause(broker.access(roles=("operator",)), run, reason, timeout))


@shared.command()
@click.option(
    "--run", metavar="ID", default=None, show_default="the run that is online", help="Continue only this run."
)
@ANSWER_TIMEOUT
@shared.broker_options
@shared.logging_options
@shared.config_option
def resume(run: str | None, timeout: float, broker: BrokerOptions, verbose: int, log_format: str) -> None:
    """Continue a run that is paused. One that was stopped is continued by `start --resume DIR`."""
    from fl_aggregator.tools.remote import command

    start_logging(verbose, log_format)
    click.echo(command.resume(broker.access(roles=("operator",)), run, timeout))


@shared.command()
@click.option(
    "--run", metavar="ID", default=None, show_default="the run that is online", help="Stop only this run."
)
@REASON
@click.option("--timeout", type=TIMEOUT_RANGE, default=30.0, help="Seconds to wait for the run to stop.")
@shared.broker_options
@shared.logging_options
@shared.config_option
def stop(
    run: str | None, reason: str, timeout: float, broker: BrokerOptions, verbose: int, log_format: str
) -> None:
    """Stop the run that is online, from any machine: its round is kept, and its aggregator prints how to resume."""
    from fl_aggregator.tools.remote.stop import stop as stop_run

    start_logging(verbose, log_format)
    click.echo(stop_run(broker.access(roles=("operator",)), run, reason, timeout))
