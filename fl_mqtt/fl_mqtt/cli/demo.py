"""``fl-mqtt demo``: a simulation that needs no data of the user, and as little as possible of what is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

import click

from fl_mqtt.simulation.cli import simulate

PICTURE: Final = Path(__file__).with_name("seven.png")
"""A handwritten 7."""


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
    options_metavar="[OPTIONS OF simulate]",
)
@click.argument("more", nargs=-1, type=click.UNPROCESSED, metavar="")
def demo(more: tuple[str, ...]) -> Any:
    """Train 20 edges on handwritten digits for 10 rounds, then ask them what a picture shows."""
    arguments = demo_arguments()
    return simulate.main([*arguments, *more], prog_name="fl-mqtt simulate", standalone_mode=False)


def demo_arguments() -> list[str]:
    """The arguments of ``simulate``. Says on standard error what is left out because a package is missing."""
    from fl_edge.tasks.registry import EDGE_PACKAGES

    missing = {name for name in EDGE_PACKAGES if importlib.util.find_spec(name) is None}
    if not missing:
        return ["--task", "digits", "--predict", str(PICTURE)]
    if "PIL" not in missing:
        return ["--task", "digits-mlp", "--predict", str(PICTURE)]
    click.echo(
        "there will be no prediction, since Pillow is not installed to read a picture: "
        "pip install 'fl-mqtt[lite]', or uvx --from 'fl-mqtt[lite]' fl-mqtt demo",
        err=True,
    )
    return ["--task", "digits-mlp"]
