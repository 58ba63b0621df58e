"""The command ``fl-aggregator doctor``."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from fl_shared.cli import options as shared
from fl_shared.cli.logging import start_logging
from fl_shared.errors import RunFailed

if TYPE_CHECKING:
    from fl_aggregator.tools.doctor.findings import Finding
    from fl_shared.cli.broker_access import BrokerOptions
    from fl_shared.mqtt.address import BrokerAddress


@shared.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output instead.")
@click.option(
    "--also",
    metavar="URL",
    default=None,
    callback=shared.broker_address,
    help="Also check what crosses to this broker: one with a bridge, or another of the same cluster.",
)
@shared.client_id_option
@shared.broker_options
@shared.logging_options
@shared.config_option
def doctor(
    as_json: bool,
    also: BrokerAddress | None,
    mqtt_client_id: str | None,
    broker: BrokerOptions,
    verbose: int,
    log_format: str,
) -> int:
    """Check whether a broker can support a run.

    Exits with 0 if the broker can support a run, 1 if not, 2 if the broker cannot be reached.
    """
    from fl_aggregator.tools.doctor.examination import run_checks

    start_logging(verbose, log_format)
    access = broker.access(mqtt_client_id=mqtt_client_id)
    other = None if also is None else replace(broker, broker=also).access(mqtt_client_id=mqtt_client_id)

    def tell(finding: Finding) -> None:
        if not as_json:
            click.echo(finding.line())

    report = run_checks(access, tell, other)
    click.echo(json.dumps(report.as_json()) if as_json else report.verdict())
    return 0 if report.supports_run else RunFailed.exit_code
