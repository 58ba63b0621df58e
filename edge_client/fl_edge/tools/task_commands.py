"""The commands for authors of tasks: ``fl-edge new-task`` and ``fl-edge check-task``."""

from __future__ import annotations

import importlib.resources
import math
import re
import shlex
import sys
from keyword import iskeyword
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

import click

from fl_shared.cli import options
from fl_shared.errors import RunFailed, UserError
from fl_shared.system.invocation import edge_command, install_command

if TYPE_CHECKING:
    from fl_edge.tasks.task import Task
    from fl_edge.tools.trial import Trial

FILES: Final = {
    "pyproject.toml.txt": "pyproject.toml",
    "README.md.txt": "README.md",
    "task.py.txt": "{module}/__init__.py",
}
"""The files of a new task: of the template, and where they go."""
EXAMPLE_VALUES: Final = 200
"""Values in the example's series."""


@options.command(epilog=None)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def new_task(directory: Path) -> None:
    """Write a small package with a working task into the new directory DIR, whose name is the task's."""
    name = directory.name.lower().replace("_", "-")
    if iskeyword(name) or name in sys.stdlib_module_names:
        raise UserError(
            f"DIR {str(directory)!r}: {name!r} means something else in Python; expected another name"
        )
    if re.fullmatch(r"[a-z][a-z0-9-]{0,63}", name) is None:
        raise UserError(
            f"DIR {str(directory)!r}: expected a name of the letters a-z, digits and -, as a task's"
        )
    module = name.replace("-", "_")
    class_name = "".join(part.capitalize() for part in name.split("-")) + "Task"
    try:
        directory.mkdir(parents=True)
        (directory / module).mkdir()
        (directory / "data").mkdir()
        template = importlib.resources.files("fl_edge.tools") / "template"
        for source, target in FILES.items():
            text = Template((template / source).read_text(encoding="utf-8"))
            written = text.safe_substitute(distribution=name, module=module, class_name=class_name)
            (directory / target.format(module=module)).write_text(written, encoding="utf-8")
        series = (f"{10 + 5 * math.sin(k / 4):.3f}\n" for k in range(EXAMPLE_VALUES))
        (directory / "data" / "series.csv").write_text("".join(series), encoding="utf-8")
    except FileExistsError:
        raise UserError(f"{directory}: exists, expected a new directory") from None
    except OSError as error:
        raise UserError(f"{error.filename or directory}: {error.strerror}") from None
    click.echo(f"written: {directory}")
    there, check = shlex.quote(str(directory)), f"{module}:{class_name}"
    click.echo(f"try it:  cd {there} && {edge_command('check-task', check, '--data', 'data')}")


@options.command(epilog=None)
@click.argument("task", metavar="NAME")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of the data set's files.",
)
@click.option(
    "--task-option",
    "task_options",
    multiple=True,
    metavar=options.KEY_VALUE,
    callback=options.key_values,
    help="An option of the task.",
)
@click.option("--light", is_flag=True, help="Train without PyTorch, as fl-edge --light does.")
def check_task(task: str, data: Path | None, task_options: dict[str, str], light: bool) -> None:
    """Check everything that the task NAME (or package.module:Class) must fulfil, and print a table.

    Without PyTorch, it checks tasks that a light edge can train.
    """
    from fl_edge.errors import UnknownTaskError
    from fl_edge.tasks.registry import load_task
    from fl_shared.protocol.task_spec import format_task

    try:
        found = load_task(format_task(task, task_options))
    except UnknownTaskError as error:
        raise UserError(str(error)) from None
    from fl_edge.tools.task_check import TaskCheck

    trial = _trial_of(found, data, light=light)
    failed = 0
    for finding in TaskCheck(found, data, trial).run():
        sign = {True: "ok", False: "FAILED", None: "–"}[finding.passed]
        click.echo(f"{sign:7} {finding.what:28} {finding.detail}")
        failed += finding.passed is False
    if failed:
        raise RunFailed(f"task {task}: {failed} check{'s' * (failed != 1)} failed")


def _trial_of(task: Task, data: Path | None, *, light: bool) -> Trial:
    """Returns what makes and trains the task's model. Raises ``UserError`` if nothing here can."""
    from fl_edge.tasks.dense import DenseTask
    from fl_edge.tools.light_trial import LightTrial
    from fl_edge.training.factory import has_torch

    if not light and has_torch():
        from fl_edge.tools.torch_trial import TorchTrial

        return TorchTrial(task)
    if isinstance(task, DenseTask):
        return LightTrial(task, data)
    if light:
        raise UserError(
            f"--light: task {task.name!r} needs PyTorch: light edges train tasks with dense models"
        )
    raise UserError(f"torch is not installed, and task {task.name!r} needs it: {install_command('edge')}")
