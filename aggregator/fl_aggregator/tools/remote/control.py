"""The commands that control a run over the broker. Functions import what is slow to import."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from fl_shared.cli import options as shared
from fl_shared.cli.logging import start_logging
from fl_shared.errors import UserError
from fl_shared.protocol.home_assistant import DISCOVERY_PREFIX
from fl_shared.system.text import names_text

if TYPE_CHECKING:
    from fl_shared.cli.broker_access import BrokerOptions

TIMEOUT_RANGE = shared.FiniteRange(0.1, 3600.0)
ANSWER_TIMEOUT = click.option(
    "--timeout", type=TIMEOUT_RANGE, default=10.0, help="Seconds to wait for the aggregator's answer."
)
REASON = click.option("--reason", metavar="TEXT", default="", help="Reason that the aggregator will log.")


def _run_option(text: str) -> Callable[[shared.Command], shared.Command]:
    """Adds ``--run``, passed as ``run``: null for any run."""
    return click.option("--run", metavar="ID", default=None, show_default="the run that is online", help=text)


@shared.command()
@_run_option("Pause only this run.")
@REASON
@ANSWER_TIMEOUT
@shared.broker_options
@shared.logging_options
@shared.config_option
def pause(
    run: str | None, reason: str, timeout: float, broker: BrokerOptions, verbose: int, log_format: str
) -> None:
    """Pause the run that is online: its clock stops, and no round opens until `resume`."""
    from fl_aggregator.tools.remote import command

    start_logging(verbose, log_format)
    click.echo(command.pause(broker.access(roles=("operator",)), run, reason, timeout))


@shared.command()
@_run_option("Continue only this run.")
@ANSWER_TIMEOUT
@shared.broker_options
@shared.logging_options
@shared.config_option
def resume(run: str | None, timeout: float, broker: BrokerOptions, verbose: int, log_format: str) -> None:
    """Continue a paused run. To continue a stopped run, use `start --resume DIR`."""
    from fl_aggregator.tools.remote import command

    start_logging(verbose, log_format)
    click.echo(command.resume(broker.access(roles=("operator",)), run, timeout))


@shared.command()
@_run_option("Stop only this run.")
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


@shared.command()
@click.option("--yes", is_flag=True, help="Clear without asking.")
@click.option("--home-assistant", metavar="PREFIX", default=DISCOVERY_PREFIX, callback=shared.topic_prefix,
              help="Discovery prefix of Home Assistant: the run's device is cleared there.")  # fmt: skip
@shared.broker_options
@shared.logging_options
@shared.config_option
def clear(yes: bool, home_assistant: str, broker: BrokerOptions, verbose: int, log_format: str) -> int:
    """Clear everything that is retained under the prefix: what runs have left, and the presence of offline edges.

    It first lists what it will clear, and refuses while an aggregator is online. With accounts, use the aggregator's.
    """
    from fl_aggregator.tools.remote import clear as clearing

    start_logging(verbose, log_format)
    access = broker.access(roles=("aggregator",))
    clearing.check_not_online(access)
    found = clearing.retained_topics(access)
    where = f"under the prefix {access.prefix!r} at {access.address}"
    announced = clearing.home_assistant_topic(access, home_assistant)
    if not found.topics and announced is None:
        click.echo(f"nothing is retained {where}")
        return 0
    click.echo(f"retained {where}:")
    for line in found.lines():
        click.echo(line)
    if announced is not None:
        click.echo(f"{1:7,} for Home Assistant: {announced}")
    if not yes and not sys.stdin.isatty():
        raise UserError("clear asks before it clears, but there is no terminal: add --yes")
    if not yes and not click.confirm("Clear all of them?"):
        return 0
    topics = [*found.topics, *([] if announced is None else [announced])]
    edges = list(clearing.clear(access, topics).presences.values())
    online = f"; still online, so their presence stays: {names_text(edges, 5)}" if edges else ""
    click.echo(f"cleared {len(topics)} topic{'' if len(topics) == 1 else 's'}{online}")
    return 0
