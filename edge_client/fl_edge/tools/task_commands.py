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
from typing import Final

import click

from fl_shared.cli import options
from fl_shared.errors import RunFailed, UserError
from fl_shared.system.invocation import edge_command, install_command

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
def check_task(task: str, data: Path | None, task_options: dict[str, str]) -> None:
    """Check everything that the task NAME (or package.module:Class) must fulfil, and print a table.

    It needs PyTorch, also for a task that trains without it.
    """
    from fl_edge.errors import UnknownTaskError
    from fl_edge.tasks.registry import load_task
    from fl_shared.protocol.task_spec import format_task

    try:
        found = load_task(format_task(task, task_options))
    except UnknownTaskError as error:
        raise UserError(str(error)) from None
    try:
        from fl_edge.tools.task_check import TaskCheck
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed; check-task needs it for every task: {install_command('edge')}"
        ) from None

    failed = 0
    for finding in TaskCheck(found, data).run():
        sign = {True: "ok", False: "FAILED", None: "–"}[finding.passed]
        click.echo(f"{sign:7} {finding.what:28} {finding.detail}")
        failed += finding.passed is False
    if failed:
        raise RunFailed(f"task {task}: {failed} check{'s' * (failed != 1)} failed")
