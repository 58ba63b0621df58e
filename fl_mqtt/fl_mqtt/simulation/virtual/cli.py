"""What ``fl-aggregator simulate --virtual`` does besides its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from fl_aggregator.cli.run import run_aggregator
from fl_aggregator.storage.run_directory import FLEET_LOG, VirtualTimeRecord
from fl_mqtt.simulation.local import deleted_without_run
from fl_shared.cli.headings import BROKER, GroupedOption
from fl_shared.cli.logging import logging_to_file
from fl_shared.errors import UserError

if TYPE_CHECKING:
    from fl_aggregator.monitoring.tracking.options import TrackingOptions
    from fl_aggregator.server.launch import Launch
    from fl_aggregator.server.outcome import Outcome
    from fl_mqtt.simulation.virtual.run import VirtualRun


def virtual_devices(heterogeneity: str | None, clients: int) -> VirtualTimeRecord:
    """Returns what ``run.json`` says of the devices of ``clients`` edges. Raises ``UserError``.

    ``heterogeneity``: see its option.
    """
    from fl_mqtt.simulation.virtual.specification import preset_names, read_specification

    name = heterogeneity or "uniform"
    sha256 = read_specification(name, clients).sha256
    if name not in preset_names():
        name = str(Path(name).absolute())  # a resume may be started elsewhere
    return VirtualTimeRecord(heterogeneity=name, sha256=sha256)


def refuse_with_virtual() -> None:
    """Raises ``UserError`` if an option is given that needs a broker, or edges that outlive the run.

    Those of the broker count on the command line alone: the environment and ``--config`` have them for all programs.
    Called within a click command.
    """
    context = click.get_current_context()
    for option in context.command.params:
        name = option.name or ""
        on_command_line = context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        needs_broker = isinstance(option, GroupedOption) and option.heading == BROKER and on_command_line
        if needs_broker or (name in ("request", "stay") and context.params[name]):
            raise UserError(
                f"{option.opts[-1]} cannot be combined with --virtual: in virtual time there is no broker, "
                "and no edge outlives the run"
            )


def run_in_virtual_time(
    launch: Launch, tracking: TrackingOptions, log_format: str, quiet: bool
) -> tuple[VirtualRun, Outcome]:
    """Runs until the run is over, shows it meanwhile, and prints its summary. Called within a click command.

    What the edges log goes into ``fleet.log``.
    """
    from fl_mqtt.simulation.virtual.run import VirtualRun

    refuse_with_virtual()
    edges = ("fl_edge", "fl_mqtt.simulation.virtual.edge", "fl_mqtt.simulation.virtual.fleet")
    with (
        deleted_without_run(launch.directory.path),
        run_aggregator(
            launch,
            lambda observer, trackers: VirtualRun(launch, observer, trackers),
            tracking,
            log_format,
            quiet,
            [],
        ) as (run, finish),
        logging_to_file(launch.directory.path / FLEET_LOG, log_format, *edges),
    ):
        outcome = run.run()
        finish(outcome)
    return run, outcome
