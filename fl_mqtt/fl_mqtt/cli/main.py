"""``fl-mqtt``, which groups what the other programs do. Heavy imports wait until a command runs."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from fl_aggregator.cli.main import cli as aggregator
from fl_edge import cli as fl_edge
from fl_mqtt.cli.demo import demo
from fl_mqtt.regional.cli import relay
from fl_mqtt.simulation.cli import simulate
from fl_shared.cli import options as shared
from fl_shared.cli.headings import CommandGroup
from fl_shared.cli.main import run_program


@click.group(
    cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@shared.version_option
def cli() -> None:
    """Federated learning over the MQTT broker that you already run."""


for name, command in {
    "demo": demo,
    "simulate": simulate,
    "relay": relay,
    "aggregator": aggregator,
    "edge": fl_edge.command,
}.items():
    cli.add_command(command, name)


def main() -> NoReturn:
    """Runs ``fl-mqtt`` as a console script; exits with the code of the command."""
    if sys.argv[1:2] == ["edge"]:  # it has commands for authors of tasks, besides
        del sys.argv[1]
        fl_edge.main("fl-mqtt edge")
    run_program(cli, "fl-mqtt")
