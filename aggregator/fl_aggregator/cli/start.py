"""``fl-aggregator start``. Heavy imports wait until it runs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fl_aggregator.cli.options import program_options, refuse_with_resume, run_options, settings_options
from fl_aggregator.cli.run import exit_code, run_aggregator
from fl_aggregator.monitoring.tracking.options import TrackingOptions, tracking_options
from fl_shared.cli import options as shared
from fl_shared.cli.logging import start_logging
from fl_shared.errors import UserError

if TYPE_CHECKING:
    from fl_shared.cli.broker_access import BrokerOptions


@shared.command(more=settings_options)
@run_options
@tracking_options
@shared.home_assistant_option("Announce the run to Home Assistant as a device, under its discovery prefix.")
@program_options
def start(
    broker: BrokerOptions,
    mqtt_client_id: str | None,
    verbose: int,
    log_format: str,
    quiet: bool,
    init: Path | None,
    run_dir: Path | None,
    resume: Path | None,
    tracking: TrackingOptions,
    home_assistant: str | None,
    **values: Any,
) -> int:
    """Run training rounds with the edges that connect to the broker."""
    from fl_aggregator.configuration.privacy import check_account
    from fl_aggregator.configuration.settings import parse_settings
    from fl_aggregator.messaging.unsealing import Unsealer
    from fl_aggregator.server import launch as launches
    from fl_aggregator.server.aggregator import Aggregator
    from fl_aggregator.tools.remote.cli import watch_command
    from fl_shared.mqtt.address import BrokerAddress

    start_logging(verbose, log_format, quiet=quiet)
    if resume is None:
        access = broker.access(roles=("aggregator",), mqtt_client_id=mqtt_client_id)
        settings = parse_settings(**values, prefix=access.prefix)
        check_account(settings, has_kit=access.kit is not None)
        unsealer = Unsealer.of(access.kit, settings)
        launch = launches.new(settings, run_dir, init)
    else:
        refuse_with_resume()
        launch = launches.resume(resume, simulated=False, require_sealed=values["require_sealed"])
        settings = launch.record.settings
        recorded = BrokerAddress.parse(launch.record.broker)
        access = broker.access(
            roles=("aggregator",), mqtt_client_id=mqtt_client_id, recorded_address=recorded
        )
        check_account(settings, has_kit=access.kit is not None)
        unsealer = Unsealer.of(access.kit, settings)
        if access.kit is not None and access.prefix != settings.prefix:
            raise UserError(
                f"--kit: the kit's account has rights under the prefix {access.prefix!r}, "
                f"but the run uses {settings.prefix!r}"
            )
    if settings.target is not None and settings.holdout == 0:
        # Not an error: such an edge may still connect.
        click.echo(
            "fl-aggregator: --target with --holdout 0: only edges with --role evaluate measure; "
            "without one, the run does all --rounds",
            err=True,
        )
    hint = f"watch it: {watch_command(access, launch.record.prefix, broker)}"
    with (
        closing(launch),
        run_aggregator(
            launch,
            lambda observer, trackers: Aggregator(
                launch,
                access,
                unsealer=unsealer,
                observer=observer,
                trackers=trackers,
                home_assistant=home_assistant,
            ),
            tracking,
            log_format,
            quiet,
            broker.resume_arguments(),
            hint,
        ) as (
            aggregator,
            finish,
        ),
    ):
        outcome = aggregator.run()
        finish(outcome)
    return exit_code(outcome)
