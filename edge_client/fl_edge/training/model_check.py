"""Examines a task's model whole when the task is loaded, so that no mistake shows only after the first round."""

from __future__ import annotations

import logging
from typing import Any, Final

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fl_edge.errors import UnusableModelError
from fl_edge.tasks.task import Task
from fl_edge.training.local_training import build_model
from fl_shared.system.text import names_text
from fl_shared.tensors.manifest import MAX_ARRAYS, MAX_DIMENSIONS, MAX_NAME, MAX_VALUES

LOG: Final = logging.getLogger(__name__)

RESERVED_NAMES: Final = frozenset({"__metadata__"})
"""Names that a safetensors file gives another meaning."""
PROBE: Final = 0.5
"""What is added to all values to see whether the model takes them."""


def examine_model(task: Task) -> None:
    """Raises ``UnusableModelError``, which names the array at fault, if the task's model cannot be trained in a run."""
    model: Any = build_model(task, 0)
    if not isinstance(model, nn.Module):
        raise _unusable(task, f"model() returns a {type(model).__name__}, expected a torch.nn.Module")
    arrays = [*model.named_parameters(), *model.named_buffers()]
    for name, value in arrays:
        if is_lazy(value):
            raise _unusable(
                task, f"array {name!r:.80} is lazy: expected one that has its shape from the start"
            )
    state = model.state_dict()
    shared = _shared_names(task, model, state)
    for name in shared:
        problem = _problem_of(name, state[name])
        if problem is not None:
            raise _unusable(task, f"array {name!r:.80} {problem}")
    values = sum(state[name].numel() for name in shared)
    if not values:
        raise _unusable(task, "shares no values: expected at least one floating-point array in state_dict()")
    if len(shared) > MAX_ARRAYS or values > MAX_VALUES:
        raise _unusable(
            task,
            f"shares {len(shared)} arrays with {values} values, expected at most {MAX_ARRAYS} with {MAX_VALUES}",
        )
    _check_it_takes_weights(task, model, state, shared)


def _unusable(task: Task, problem: str) -> UnusableModelError:
    return UnusableModelError(f"task {task.name}: the model: {problem}")


def _shared_names(task: Task, model: nn.Module, state: dict[str, Any]) -> tuple[str, ...]:
    """Returns the shared names. A task with a ``shared`` of its own decides which arrays stay at home."""
    shared = tuple(task.shared(model))
    for name in shared:
        if name not in state:
            raise _unusable(task, f"shared() names {name!r:.80}, which state_dict() does not contain")
    if type(task).shared is Task.shared:
        learnt = {name: value for name, value in model.named_parameters() if value.requires_grad}
        for name, value in learnt.items():
            if name not in shared:
                kind = str(value.dtype).removeprefix("torch.")
                problem = (
                    f"is {kind}: expected a floating-point type"
                    if name in state
                    else "is not in state_dict()"
                )
                raise _unusable(
                    task, f"parameter {name!r:.80} {problem}, or a shared() that leaves it out on purpose"
                )
        for name, value in state.items():
            if not isinstance(value, torch.Tensor):
                raise _unusable(
                    task,
                    f"state {name!r:.80} (get_extra_state) is no tensor: expected none, or a shared() that leaves it "
                    "out on purpose",
                )
    home = sorted(set(state) - set(shared))
    if home:
        LOG.info("task %s: not shared, each edge keeps its own: %s", task.name, names_text(home))
    return shared


def _problem_of(name: str, value: Any) -> str | None:
    """Returns what is wrong with a shared array; null if nothing is."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        kind = (
            str(value.dtype).removeprefix("torch.")
            if isinstance(value, torch.Tensor)
            else type(value).__name__
        )
        return f"is {kind}: expected a floating-point tensor"
    if len(name) > MAX_NAME:
        return f"has a name of {len(name)} characters, expected at most {MAX_NAME}"
    if name in RESERVED_NAMES:
        return "has a name that safetensors reserves: expected another one"
    if value.is_meta or value.layout != torch.strided:
        return f"is on the device {value.device} in the layout {value.layout}, expected values in memory, strided"
    if value.dim() > MAX_DIMENSIONS:
        return f"has {value.dim()} dimensions, expected at most {MAX_DIMENSIONS}"
    if any(step == 0 and size > 1 for step, size in zip(value.stride(), value.shape, strict=True)):
        return "is expanded, so that its values overlap in memory: expected a copy (.clone())"
    if not torch.isfinite(value).all():
        return "has first values that are not finite: expected finite numbers"
    return None


def _check_it_takes_weights(
    task: Task, model: nn.Module, state: dict[str, torch.Tensor], shared: tuple[str, ...]
) -> None:
    """Writes other weights into the model, and compares what it has then."""
    probe = {name: state[name].detach() + PROBE for name in shared}
    try:
        model.load_state_dict(probe, strict=False)
    except Exception as error:  # a foreign module may raise any error
        problem = " ".join(str(error).split())
        raise _unusable(task, f"load_state_dict() fails: {type(error).__name__}: {problem}") from error
    taken = model.state_dict()
    for name, value in probe.items():
        if not torch.equal(taken[name], value):
            raise _unusable(
                task, f"array {name!r:.80} does not take the weights that load_state_dict() gives it"
            )
