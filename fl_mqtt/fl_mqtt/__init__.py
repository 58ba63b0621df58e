"""Federated learning over an MQTT broker, for Python programs: what `library` offers, and what a task is made of.

It combines the aggregator and the edges. Neither of their packages imports this one. A name is imported when it is
used, so that ``import fl_mqtt`` is fast.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fl_edge.tasks.dense import DenseLayers as DenseLayers
    from fl_edge.tasks.dense import DenseTask as DenseTask
    from fl_edge.tasks.task import Examples as Examples
    from fl_edge.tasks.task import LoadContext as LoadContext
    from fl_edge.tasks.task import LocalData as LocalData
    from fl_edge.tasks.task import Metric as Metric
    from fl_edge.tasks.task import Scores as Scores
    from fl_edge.tasks.task import Task as Task
    from fl_edge.tasks.task import TaskOptions as TaskOptions
    from fl_edge.tasks.task import TrainingDefaults as TrainingDefaults
    from fl_edge.tasks.task import TrainReport as TrainReport
    from fl_mqtt.library.edge import Edge as Edge
    from fl_mqtt.library.result import EdgeResult as EdgeResult
    from fl_mqtt.library.result import Result as Result
    from fl_mqtt.library.run import Aggregator as Aggregator
    from fl_mqtt.library.run import simulate as simulate
    from fl_shared.errors import RunFailed as RunFailed
    from fl_shared.errors import UserError as UserError

_OF_TASKS: Final = (
    "Examples",
    "LoadContext",
    "LocalData",
    "Metric",
    "Scores",
    "Task",
    "TaskOptions",
    "TrainReport",
    "TrainingDefaults",
)
_MODULES: Final = {
    **dict.fromkeys(_OF_TASKS, "fl_edge.tasks.task"),
    **dict.fromkeys(("DenseLayers", "DenseTask"), "fl_edge.tasks.dense"),
    **dict.fromkeys(("Aggregator", "simulate"), "fl_mqtt.library.run"),
    **dict.fromkeys(("EdgeResult", "Result"), "fl_mqtt.library.result"),
    **dict.fromkeys(("RunFailed", "UserError"), "fl_shared.errors"),
    "Edge": "fl_mqtt.library.edge",
}
"""Where each public name is defined."""

for _package in ("fl_aggregator", "fl_edge", "fl_mqtt", "fl_shared"):
    # A library's log lines go where the program sends them, and nowhere if it does not say.
    logging.getLogger(_package).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Imports a public name. Raises ``AttributeError`` if there is none."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """The public names, besides those of every module."""
    return sorted((*globals(), *_MODULES))
