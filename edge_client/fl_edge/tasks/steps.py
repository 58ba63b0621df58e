"""Lets whoever trains a task see each step of its optimiser, with the gradients in place. Imports no torch.

Own optimisers call `before_step`, those of ``torch.optim`` have a hook (`fl_edge.training.corrections.observation`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol


class StepObserver(Protocol):
    """Sees the steps of one training, all on one thread."""

    def enter_step(self) -> None:
        """Called before each step of torch."""
        ...

    def leave_step(self) -> None:
        """Called after it: parameters that change until the next one do so outside all steps."""
        ...

    def before_step(self, parameters: Sequence[Any], gradients: Sequence[Any]) -> None:
        """Called before each step with tensors or arrays: gradients may be changed in place. A null one is none."""
        ...

    def logits_adjusted(self) -> None:
        """Called if the loss is adjusted as the settings ask for."""
        ...

    def private_sgd(self) -> Callable[..., Any] | None:
        """Returns what must take the steps in place of `fl_edge.tasks.sgd`; null if nothing must."""
        ...


_OF_THREAD = threading.local()


@contextmanager
def observed(observer: StepObserver) -> Iterator[None]:
    """Lets ``observer`` see the steps that this thread takes."""
    _OF_THREAD.observer = observer
    try:
        yield
    finally:
        _OF_THREAD.observer = None


def observer() -> StepObserver | None:
    """Returns who sees the steps of this thread, if anybody does."""
    return getattr(_OF_THREAD, "observer", None)


@contextmanager
def step() -> Iterator[None]:
    """Must be around each step of an optimiser of torch's parameters that is none of torch's."""
    seen_by = observer()
    if seen_by is not None:
        seen_by.enter_step()
    yield
    if seen_by is not None:
        seen_by.leave_step()


def before_step(parameters: Sequence[Any], gradients: Sequence[Any]) -> None:
    """Must be called before each step of an optimiser that is none of torch's (see `StepObserver`)."""
    if (seen_by := observer()) is not None:
        seen_by.before_step(parameters, gradients)


def logits_adjusted() -> None:
    """Must be called by a training whose loss is adjusted (see `StepObserver`)."""
    if (seen_by := observer()) is not None:
        seen_by.logits_adjusted()


def private_sgd() -> Callable[..., Any] | None:
    """Returns what must take the steps of `fl_edge.tasks.sgd` in its place (see `StepObserver`)."""
    seen_by = observer()
    return None if seen_by is None else seen_by.private_sgd()
