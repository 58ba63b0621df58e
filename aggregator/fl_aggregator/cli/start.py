"""The commands that run something here: ``fl-aggregator start`` and ``simulate``. Heavy imports wait until one runs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fl_aggregator.cli.options import refuse_beside_resume, run_options
from fl_aggregator.cli.run import exit_code, run_aggregator
from fl_aggregator.monitoring.tracking.options import Tracking, tracking_options
from fl_shared.cli import options as shared
from fl_shared.cli.logging import start_logging
from fl_shared.errors import UserError

if TYPE_CHECKING:
    from fl_aggregator.storage.spool import Durability
    from fl_shared.cli.broker_access import BrokerOptions


@click.command(context_settings=shared.CONTEXT, epilog=shared.EPILOG)
@run_options
@tracking_options
@shared.quiet_option
@click.option("--grace", type=float, default=5.0, help="Seconds that a lost edge has to return.")
@shared.broker_options
@click.option("--mqtt-client-id", default=None, help="MQTT client id, for brokers that tie it to an account.")
@click.option(
    "--require-sealed",
    is_flag=True,
    help="Reject unsealed messages from edges (see fl-edge --seal).",
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
    """Run training rounds with the edges that connect to the broker."""
    from fl_aggregator.messaging.unsealing import Unsealer
    from fl_aggregator.server import launch as launches
    from fl_aggregator.settings import parse
    from fl_aggregator.tools.remote.cli import watch_command
    from fl_shared.mqtt.address import BrokerAddress

    start_logging(verbose, log_format, quiet=quiet)
    if resume is None:
        reach = broker.reach(roles=("aggregator",), mqtt_client_id=mqtt_client_id)
        seals = Unsealer(reach.kit, required=require_sealed)
        launch = launches.new(parse(**values, prefix=reach.prefix), run_dir, init, durability, chunk)
    else:
        refuse_beside_resume()
        launch = launches.resume(resume, simulated=False)
        recorded = BrokerAddress.parse(launch.record.broker)
        reach = broker.reach(roles=("aggregator",), mqtt_client_id=mqtt_client_id, otherwise=recorded)
        require_sealed = require_sealed or launch.record.require_sealed
        seals = Unsealer(reach.kit, required=require_sealed)
        if reach.kit is not None and reach.prefix != launch.record.settings.prefix:
            raise UserError(
                f"--kit: the kit's account has rights under the prefix {reach.prefix!r}, "
                f"but the run uses {launch.record.settings.prefix!r}"
            )
    if launch.record.settings.target_accuracy is not None and launch.record.settings.holdout == 0:
        # Not refused: nobody knows yet who will come.
        click.echo(
            "fl-aggregator: --target-accuracy with --holdout 0: only edges with --role evaluate measure accuracy; "
            "without one, the run does all --rounds",
            err=True,
        )
    launch = launch.recording(require_sealed=require_sealed)
    hint = f"watch it: {watch_command(reach, launch.record.prefix)}"
    with (
        closing(launch),
        run_aggregator(launch, reach, tracking, log_format, quiet, broker.keys(), hint, seals) as (
            aggregator,
            finish,
        ),
    ):
        outcome = aggregator.run()
        finish(outcome)
    return exit_code(outcome)


# --- what start and simulate have in common -----------------------------------------------------------------
