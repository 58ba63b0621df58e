"""``fl-aggregator`` with all its commands. Heavy imports wait until a command runs."""

from __future__ import annotations

from typing import NoReturn

import click

from fl_aggregator.cli.serve import serve
from fl_aggregator.cli.start import start
from fl_aggregator.cli.strategies import strategies
from fl_aggregator.cli.survey import survey
from fl_aggregator.tools.dashboard.cli import dashboard
from fl_aggregator.tools.doctor.cli import doctor
from fl_aggregator.tools.privacy.cli import privacy
from fl_aggregator.tools.provision.cli import provision
from fl_aggregator.tools.remote.cli import logs, predict, status, watch
from fl_aggregator.tools.remote.control import clear, pause, resume, stop
from fl_aggregator.tools.report.cli import report
from fl_shared.cli import options as shared
from fl_shared.cli.headings import CommandGroup
from fl_shared.cli.main import run_program
from fl_shared.cli.request_kit import request_kit_command
from fl_shared.system.entry_points import entry_points


@click.group(
    cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@shared.version_option
def cli() -> None:
    """Federated learning over the MQTT broker that you already run."""


for command in (
    start,
    survey,
    serve,
    predict,
    pause,
    resume,
    stop,
    clear,
    status,
    watch,
    logs,
    dashboard,
    report,
    privacy,
    strategies,
    provision,
    request_kit_command("asker"),
    doctor,
):
    cli.add_command(command)
# Commands that compose both programs lie in a package above this one: found as entry points, not imported.
for entry in entry_points("fl_aggregator.commands"):
    cli.add_command(entry.load())


def main() -> NoReturn:
    """Runs ``fl-aggregator`` as a console script; exits with the code of the command."""
    run_program(cli, "fl-aggregator")


if __name__ == "__main__":
    main()
