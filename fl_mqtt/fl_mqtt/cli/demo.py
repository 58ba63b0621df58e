"""``fl-mqtt demo``: a simulation that needs no data of the user, and no package that is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

import click

from fl_mqtt.simulation.cli import simulate

PICTURE: Final = Path(__file__).with_name("seven.png")
"""A handwritten 7."""
COARSE_PICTURE: Final = Path(__file__).with_name("seven.json")
"""The same as the task's pictures are, 8 × 8 pixels, which can be read without Pillow."""


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
    options_metavar="[OPTIONS OF simulate]",
)
@click.argument("more", nargs=-1, type=click.UNPROCESSED, metavar="")
def demo(more: tuple[str, ...]) -> Any:
    """Train 20 edges on digits for 10 rounds, then ask for a prediction."""
    arguments = demo_arguments()
    return simulate.main([*arguments, *more], prog_name="fl-mqtt simulate", standalone_mode=False)


def demo_arguments() -> list[str]:
    """The arguments of ``simulate``: a task and a picture for which no package is missing."""
    from fl_edge.tasks.registry import EDGE_PACKAGES

    missing = {name for name in EDGE_PACKAGES if importlib.util.find_spec(name) is None}
    task = "digits-mlp" if missing else "digits"
    return ["--task", task, "--predict", str(COARSE_PICTURE if "PIL" in missing else PICTURE)]
