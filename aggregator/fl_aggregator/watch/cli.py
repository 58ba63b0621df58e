"""``fl-aggregator status`` and ``fl-aggregator watch``. Heavy imports wait until a command runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fl_shared import options as shared
from fl_shared.errors import RunFailed, UserError

if TYPE_CHECKING:
    from fl_shared.broker_url import BrokerAddress

WAIT = click.FloatRange(0.1, 86_400.0)


def watch_command(broker: str, prefix: str) -> str:
    """The command line that watches a run from another terminal."""
    under = "" if prefix == "fl" else f" --prefix {shlex.quote(prefix)}"
    return f"fl-aggregator watch --broker {shlex.quote(broker)}{under}"


@click.command(context_settings=shared.CONTEXT, epilog=shared.EPILOG)
@click.option("--wait", type=WAIT, default=5.0, help="Seconds to wait for the first status.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, with the curves and every edge."
)
@click.option("--check", is_flag=True, help="Say nothing if a run is online and its status is not older than 15 s; "
              "else why not, and end with 1.")  # fmt: skip
@shared.broker_options
@shared.config_option
def status(
    wait: float,
    as_json: bool,
    check: bool,
    broker: BrokerAddress,
    password_file: Path | None,
    prefix: str,
    keepalive: int,
) -> int:
    """Look once at the run under a prefix, whether or not its aggregator is there."""
    from fl_aggregator import status as looking
    from fl_aggregator.links import BrokerSettings
    from fl_aggregator.watch.sight import as_json as fields_of_sight

    reach = BrokerSettings(broker, shared.read_password(password_file), keepalive)
    try:
        sight = looking.look(reach, prefix, wait)
    except UserError as error:
        if check:  # for a container's health there is but well and not well
            raise RunFailed(str(error)) from None
        raise
    if as_json:
        click.echo(json.dumps(fields_of_sight(sight, everything=True)))
    if check:
        why = looking.check(sight)
        if why is not None:
            raise RunFailed(why)
    elif not as_json:
        for line in looking.lines(sight):
            click.echo(line)
    return 0


@click.command(context_settings=shared.CONTEXT, epilog=shared.EPILOG)
@click.option("--wait", type=WAIT, default=5.0, help="Seconds to wait for the first status.")
@click.option("--give-up", type=WAIT, default=600.0,
              help="Seconds without the broker or the aggregator after which it ends with 1.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@shared.broker_options
@shared.config_option
def watch(
    wait: float,
    give_up: float,
    as_json: bool,
    broker: BrokerAddress,
    password_file: Path | None,
    prefix: str,
    keepalive: int,
) -> int:
    """Follow the run under a prefix until it ends; the exit code is the run's: 0, 1, or 130 if it was stopped."""
    from rich.console import Console

    from fl_aggregator.links import BrokerSettings
    from fl_aggregator.watch import live

    reach = BrokerSettings(broker, shared.read_password(password_file), keepalive)
    return live.watch(reach, prefix, wait, give_up, as_json=as_json, console=Console())
