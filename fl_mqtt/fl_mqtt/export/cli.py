"""The command ``fl-aggregator export``. The function imports what is slow to import."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

import click

from fl_shared.cli import options as shared
from fl_shared.errors import UserError
from fl_shared.system.invocation import install_command

SUFFIXES: Final = {"torch": ".pt", "onnx": ".onnx"}
"""The formats, and the ends of their files' names."""
PACKAGES: Final = {"torch": ("torch",), "onnx": ("torch", "onnx")}
"""What must be installed for a format."""


@shared.command(epilog=None)
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(list(SUFFIXES)),
    default="torch",
    show_default=True,
    help="torch: a state_dict; onnx: the model with its weights.",
)
@click.option("--best", is_flag=True, help="Export best.safetensors instead of model.safetensors.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    show_default="beside the model",
    help="File to write.",
)
@shared.config_option
def export(directory: Path, form: str, best: bool, out: Path | None) -> None:
    """Write the model of the run in DIR for other programs.

    It needs the task of the run, and PyTorch, as an edge does.
    """
    file = directory / ("best.safetensors" if best else "model.safetensors")
    if not file.is_file():
        raise UserError(f"{file}: is missing, expected a run directory with a model")
    for package in PACKAGES[form]:
        if importlib.util.find_spec(package) is None:
            install = install_command("edge") if package == "torch" else f"pip install {package}"
            raise UserError(f"--format {form} needs {package}, which is not installed: {install}")

    from fl_edge.errors import EdgeError
    from fl_mqtt.export import formats
    from fl_shared.system.files import write_atomically

    out = out or file.with_suffix(SUFFIXES[form])
    try:
        write_atomically(out, formats.convert(file, form))
    except EdgeError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror or error}") from None
    click.echo(f"written: {out}")
