"""The tasks of an edge: their names, without importing torch, and the tasks, loaded on demand.

Other distributions add tasks through the entry-point group ``fl_mqtt.tasks``: the name is the task's name, and the
object is a subclass of ``Task``. ``package.module:Class`` is a task that is not installed; the edge's user must name it
(``--task``), since an aggregator must not make an edge import a module. ``synthetic-N`` is a task for measuring: N
parameters, no data, no torch, and training that returns at once.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from fl_edge.errors import EdgeError, TaskOptionsError, UnknownTaskError
from fl_edge.tasks.code_errors import error_text
from fl_edge.tasks.synthetic import NAME_PREFIX, parameter_count
from fl_shared.protocol.task_spec import own_options
from fl_shared.system.entry_points import entry_points, search_current_directory
from fl_shared.system.invocation import install_command

if TYPE_CHECKING:
    from fl_edge.tasks.task import Task

ENTRY_POINT_GROUP: Final = "fl_mqtt.tasks"
TASK_PATH: Final = "FL_TASK_PATH"
"""The environment variable with more directories of ``package.module:Class``, as a list in JSON."""

_BUILT_IN: Final = {
    "digits": "fl_edge.tasks.digits:DigitsTask",
    "mnist": "fl_edge.tasks.mnist:MnistTask",
    "fashion-mnist": "fl_edge.tasks.mnist:FashionMnistTask",
    "cifar10": "fl_edge.tasks.cifar10:Cifar10Task",
    "digits-mlp": "fl_edge.tasks.digits_mlp:DigitsMlpTask",
    "tabular": "fl_edge.tasks.tabular:TabularTask",
    "images": "fl_edge.tasks.images:ImagesTask",
    "series": "fl_edge.tasks.series:SeriesTask",
}

_LIGHT: Final = {"digits-mlp", "tabular", "series"}
EDGE_PACKAGES: Final = frozenset({"torch", "torchvision", "PIL"})
"""What the extra ``edge`` installs."""


def names() -> tuple[str, ...]:
    """Returns the names of all tasks: the built-in ones, then the others in order. Imports none of them."""
    return (*_BUILT_IN, *sorted(_plugins()))


def light_names() -> tuple[str, ...]:
    """Returns the names of the tasks that may not need torch. Imports none of them."""
    return tuple(name for name in names() if name not in _BUILT_IN or name in _LIGHT)


def needs_package(name: str, package: str) -> str:
    """Returns what to say of a task that needs a package of the extra ``edge``."""
    return f"task {name!r} needs {package}, which is not installed: {install_command('edge')}"


def has_task(name: str) -> bool:
    """Returns whether this edge has the task. Raises ``UnknownTaskError`` for a ``synthetic-N`` with an invalid N."""
    return name in names() or is_path(name) or parameter_count(name) is not None


def is_path(name: str) -> bool:
    """Whether this names a class by its module (``package.module:Class``)."""
    return ":" in name


def unknown_text(name: str) -> str:
    """Returns what to say of a name that no task has: the names that are known, and how to name a class."""
    known = names()
    hint = _nearest(name, known)
    module, _, kind = name.rpartition(".")
    for found, its_class in ((name, "CLASS"), (module, kind)):
        if not hint and found and Path(f"{found.replace('.', '/')}.py").is_file():
            hint = f" (did you mean '{found}:{its_class}'?)"
    return f"{name!r} is unknown here{hint}, expected one of: {', '.join(known)}, {NAME_PREFIX}N, or module:Class"


def load_task(text: str) -> Task:
    """Returns a new task of this name, with its options (`task_spec`).

    Raises ``UnknownTaskError`` if there is none (it lists the names), or if it cannot be loaded (it says why), and
    ``TaskOptionsError`` for an option that is wrong.
    """
    name, given = own_options(text)
    kind = task_class(name)
    try:
        options = kind.Options.model_validate(given)
    except ValidationError as error:
        raise TaskOptionsError(f"task {name}: {_option_mistake(kind, error)}") from None
    try:
        task = kind(options)
    except EdgeError:
        raise
    except (Exception, SystemExit) as error:  # a foreign class may raise any error
        reason = error_text(error, kind.__module__)
        raise UnknownTaskError(f"task {name!r} cannot be created: {reason}") from error
    if not isinstance(getattr(task, "name", None), str):
        task.name = name
    return task


def task_class(name: str) -> type[Task]:
    """Returns the class of the task. Raises ``UnknownTaskError`` as `load_task` does."""
    from fl_edge.tasks.task import Task

    if name in _BUILT_IN:
        entry: EntryPoint | None = EntryPoint(name, _BUILT_IN[name], ENTRY_POINT_GROUP)
    else:
        entry = _by_path(name) if is_path(name) else _plugins().get(name)
    if entry is None:
        raise UnknownTaskError(f"task {unknown_text(name)}")
    try:
        loaded: object = entry.load()
    except (Exception, SystemExit) as error:  # a foreign module may raise any error
        if isinstance(error, ModuleNotFoundError) and error.name in EDGE_PACKAGES:
            raise UnknownTaskError(needs_package(name, error.name)) from None
        whence = "" if entry.value == name else f" ({entry.value})"
        reason = error_text(error, entry.module)
        raise UnknownTaskError(f"task {name!r}{whence} cannot be loaded: {reason}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Task)):
        raise UnknownTaskError(
            f"task {name!r} is {_kind_of(loaded)}, expected a subclass of fl_edge.tasks.task.Task"
        )
    return loaded


def _by_path(path: str) -> EntryPoint:
    """Returns the class of ``package.module:Class``, which may also lie in the current directory or in `TASK_PATH`."""
    if EntryPoint.pattern.fullmatch(path) is None or path.partition(":")[0].endswith(".py"):
        file, _, kind = path.partition(":")
        module = Path(file.removesuffix(".py")).name or "module"
        raise UnknownTaskError(
            f"task {path!r}: expected package.module:Class, for example '{module}:{kind or 'Class'}' in the directory "
            f"of {module}.py"
        )
    search_current_directory(json.loads(os.environ.get(TASK_PATH, "[]")))
    return EntryPoint(path, path, ENTRY_POINT_GROUP)


def _kind_of(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of the type {type(value).__name__}"


def _nearest(name: str, known: Iterable[str]) -> str:
    """Returns a question in brackets: whether a similar name is meant; empty if there is none."""
    similar = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {similar[0]!r}?)" if similar else ""


def _option_mistake(kind: type[Task], error: ValidationError) -> str:
    mistakes = error.errors(include_url=False)
    # A misspelt option is missing as well: its wrong name says more.
    first = next((one for one in mistakes if one["type"] == "extra_forbidden"), mistakes[0])
    option = ".".join(map(str, first["loc"]))
    known = ", ".join(kind.Options.model_fields) or "none"
    match first["type"]:
        case "extra_forbidden":
            hint = _nearest(option, kind.Options.model_fields)
            return f"option {option!r} is unknown{hint}, expected one of: {known}"
        case "missing":
            return f"option {option!r} is missing: --task-option {option}=VALUE"
        case _:
            problem = str(first["msg"]).removeprefix("Value error, ")
            return f"option {option}={first['input']}: {problem}" if option else problem


def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(ENTRY_POINT_GROUP) if entry.name not in _BUILT_IN}
