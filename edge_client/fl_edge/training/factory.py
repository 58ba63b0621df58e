"""Chooses the executor of a task. torch is imported with the first task that needs it."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

from fl_edge.errors import TaskOptionsError, UnknownTaskError
from fl_edge.tasks.synthetic import parameter_count
from fl_edge.training.executor import Executor
from fl_shared.protocol.task_spec import task_name
from fl_shared.survey.terms import SurveyTerms


def has_torch() -> bool:
    """Returns whether torch is installed. Does not import it."""
    return importlib.util.find_spec("torch") is not None


@lru_cache(maxsize=64)
def executor_for(
    task: str, data_dir: Path | None, device: str, *, light: bool = False, hides_examples: bool = False
) -> Executor:
    """Returns the executor of the task, which is cached. ``light``: one without torch.

    ``hides_examples``: it trains with ``private`` only. Raises ``UnknownTaskError``, also for a task that needs torch
    where there is none.
    """
    from fl_edge.tasks.registry import load_task, needs_package
    from fl_edge.training.local_part import LocalPart
    from fl_edge.training.synthetic_executor import SyntheticExecutor

    if hides_examples and (light or not has_torch()):
        raise UnknownTaskError("--dp-sgd needs torch: expected an edge without --light")
    part = LocalPart.of(task)
    values = parameter_count(task_name(task))
    if values is not None and part.patterns:
        raise TaskOptionsError(f"--keep-local: a synthetic task, {task_name(task)}, has nothing to keep")
    if values is not None and hides_examples:
        raise UnknownTaskError(f"--dp-sgd: a synthetic task, {task_name(task)}, has no examples to hide")
    try:
        terms = SurveyTerms.of(task)
    except ValueError as error:
        raise TaskOptionsError(str(error)) from None
    if terms is not None:
        return _survey_executor(task, data_dir, terms, hides_examples=hides_examples)
    if values is not None:
        return SyntheticExecutor(values)
    loaded = load_task(task)
    if not light and has_torch():
        from fl_edge.training.torch_executor import TorchExecutor

        return TorchExecutor(loaded, data_dir, device, part, hides_examples=hides_examples)
    from fl_edge.tasks.dense import DenseTask
    from fl_edge.training.light_executor import LightExecutor

    if isinstance(loaded, DenseTask):
        return LightExecutor(loaded, data_dir, part)
    if has_torch():
        raise UnknownTaskError(f"task {loaded.name!r} needs torch: expected an edge without --light")
    raise UnknownTaskError(needs_package(loaded.name, "torch"))


def _survey_executor(
    task: str, data_dir: Path | None, terms: SurveyTerms, *, hides_examples: bool
) -> Executor:
    from fl_edge.tasks.registry import load_task
    from fl_edge.training.survey_executor import SurveyExecutor

    if hides_examples:
        raise UnknownTaskError(
            "--dp-sgd: a survey has no noise that hides single examples, so this edge takes part in none"
        )
    if parameter_count(task_name(task)) is not None:
        raise UnknownTaskError(f"a synthetic task, {task_name(task)}, has no data to survey")
    return SurveyExecutor(load_task(task), data_dir, terms)
