"""Chooses the executor of a task. torch is imported with the first task that needs it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fl_edge.training.executor import Executor


@lru_cache(maxsize=64)
def executor_for(task: str, data_dir: Path | None, device: str) -> Executor:
    """Returns the executor of the task, which is cached. Raises ``UnknownTaskError``."""
    from fl_edge.tasks.registry import load_task
    from fl_edge.tasks.synthetic import parameter_count
    from fl_edge.training.synthetic_executor import SyntheticExecutor

    values = parameter_count(task)
    if values is not None:
        return SyntheticExecutor(values)
    from fl_edge.training.torch_executor import TorchExecutor

    return TorchExecutor(load_task(task), data_dir, device)
