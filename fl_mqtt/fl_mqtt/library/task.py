"""The task that a Python program passes on: its name, and how other processes get its class.

A class that can be imported is named by its module. Any other, such as one of a notebook or of ``__main__``, is
written into a temporary file by cloudpickle. A module beside that file reads it. Nothing of this travels over the
broker, or stays in a run directory.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final

import cloudpickle

from fl_edge.tasks.task import Task
from fl_mqtt.simulation.local import PASSED_TASKS
from fl_shared.errors import UserError

_SOURCE: Final = '''"""A class that a Python program has passed on. cloudpickle wrote it into the file beside this."""

import pickle
from pathlib import Path

{name} = pickle.loads(Path(__file__).with_suffix(".pickle").read_bytes())
'''


@dataclass(frozen=True, slots=True)
class PassedTask:
    """A task's name, and the pickled class if other processes cannot import it."""

    name: str
    pickled: bytes | None = None

    def write(self, directory: Path) -> list[str]:
        """Writes what other processes need to load the class into ``directory``, if they need anything.

        Returns the directories in which they find it, and modules that it uses.
        """
        if self.pickled is not None:
            (directory / f"{PASSED_TASKS}.pickle").write_bytes(self.pickled)
            source = _SOURCE.format(name=self.name.partition(":")[2])
            (directory / f"{PASSED_TASKS}.py").write_text(source, encoding="utf-8")
        return [str(place.absolute()) for place in (directory, *map(Path, sys.path))]


def passed_task(task: str | type[Task]) -> PassedTask:
    """Returns the task of a name or of a class.

    Raises ``UserError`` for anything else, and for a class that cannot be pickled.
    """
    if isinstance(task, str):
        return PassedTask(task)
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise UserError(
            f"task {task!r:.100}: expected a name, 'package.module:Class', or a subclass of fl_mqtt.Task"
        )
    if _can_be_imported(task):
        return PassedTask(f"{task.__module__}:{task.__qualname__}")
    try:
        pickled = cloudpickle.dumps(task)
    except Exception as error:  # what the class refers to may raise any error
        raise UserError(
            f"task: the class {task.__name__} cannot be passed to other processes ({error}): "
            f"move it into a file NAME.py, and import it from there"
        ) from None
    return PassedTask(f"{PASSED_TASKS}:{task.__name__}", pickled)


def _can_be_imported(task: type[Task]) -> bool:
    try:
        if task.__module__ == "__main__" or importlib.util.find_spec(task.__module__) is None:
            return False
        found: object = attrgetter(task.__qualname__)(sys.modules[task.__module__])
    except (ValueError, ImportError, AttributeError, KeyError):
        return False
    return found is task
