"""The tasks of an edge: their names, without importing torch, and the tasks, loaded on demand.

Other distributions add tasks through the entry-point group ``fl_mqtt.tasks``: the name is the task's name, and the
object is a ``Task``, or a callable without arguments that returns one. ``synthetic-N`` is a task for measuring: N
parameters, no data, no torch, and training that returns at once.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final

from fl_edge.errors import UnknownTaskError
from fl_edge.tasks.synthetic import parameter_count

if TYPE_CHECKING:
    from fl_edge.tasks.task import Task

ENTRY_POINT_GROUP: Final = "fl_mqtt.tasks"

_BUILT_IN: Final = {
    "digits": "fl_edge.tasks.digits:DigitsTask",
    "mnist": "fl_edge.tasks.mnist:MnistTask",
    "fashion-mnist": "fl_edge.tasks.mnist:FashionMnistTask",
    "cifar10": "fl_edge.tasks.cifar10:Cifar10Task",
}


def names() -> tuple[str, ...]:
    """Returns the names of all tasks: the built-in ones, then the others in order. Imports none of them."""
    return (*_BUILT_IN, *sorted(_plugins()))


def has_task(name: str) -> bool:
    """Returns whether this edge has the task. Raises ``UnknownTaskError`` for a ``synthetic-N`` with an invalid N."""
    return name in names() or parameter_count(name) is not None


@lru_cache(maxsize=64)
def load_task(name: str) -> Task:
    """Returns the task of that name.

    Raises ``UnknownTaskError`` if there is none (it lists the names), or if it cannot be loaded (it says why).
    """
    from fl_edge.tasks.task import Task

    loaded: object
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        loaded = getattr(import_module(module), attribute)
    else:
        entry = _plugins().get(name)
        if entry is None:
            raise UnknownTaskError(f"task {name!r} is unknown here, expected one of: {', '.join(names())}")
        try:
            loaded = entry.load()
        except Exception as error:  # a foreign module may raise any error
            raise UnknownTaskError(f"task {name!r} ({entry.value}) cannot be loaded: {error!r}") from error
    try:
        task = loaded() if callable(loaded) else loaded
    except Exception as error:
        raise UnknownTaskError(f"task {name!r} cannot be created: {error!r}") from error
    if not isinstance(task, Task):
        raise UnknownTaskError(
            f"task {name!r} is a {type(task).__name__}, expected a fl_edge.tasks.task.Task"
        )
    return task


def _plugins() -> dict[str, EntryPoint]:
    return {
        entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name not in _BUILT_IN
    }
