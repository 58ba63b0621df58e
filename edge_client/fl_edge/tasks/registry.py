"""The tasks an edge knows: names without importing torch, the tasks themselves on demand.

``task`` says what a task is; ``image``, ``sgd``, ``classes`` and ``payload`` are what the built-in ones share;
``digits``, ``mnist`` and ``cifar10`` are the built-in ones. ``synthetic`` has the tasks ``synthetic-N``, for
measuring: N parameters, no data, no torch, training that returns at once. Other distributions add theirs through the
entry-point group ``fl_mqtt.tasks``: name = task's name, object = a ``Task`` or what makes one when called
without arguments.
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
    """All tasks of this edge: the built-in ones, then others by name. Imports none of them."""
    return (*_BUILT_IN, *sorted(_plugins()))


def has_task(name: str) -> bool:
    """Whether it is a task of this edge. Raises ``UnknownTaskError`` for a ``synthetic-N`` whose N cannot be."""
    return name in names() or parameter_count(name) is not None


@lru_cache(maxsize=64)
def load_task(name: str) -> Task:
    """The task of that name, with its data and a model of torch.

    Raises ``UnknownTaskError`` listing the names, or with what it failed.
    """
    from fl_edge.tasks.task import Task

    found: object
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found = getattr(import_module(module), attribute)
    else:
        entry = _plugins().get(name)
        if entry is None:
            raise UnknownTaskError(f"task {name!r} is unknown here, expected one of: {', '.join(names())}")
        try:
            found = entry.load()
        except Exception as error:  # somebody else's module may raise anything
            raise UnknownTaskError(f"task {name!r} ({entry.value}) cannot be loaded: {error!r}") from error
    try:
        task = found() if callable(found) else found
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
