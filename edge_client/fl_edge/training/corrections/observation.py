"""Sees each step of a training: counts it, clips its gradients, and lets the run's correction change them.

A task of torch need not know of it: a hook of ``torch.optim`` runs before each step. Before the step, and not after
``backward``, so that it is right when gradients are accumulated or scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from fl_edge.errors import TaskError
from fl_edge.tasks import steps
from fl_edge.training.corrections.between_steps import BetweenSteps
from fl_edge.training.corrections.correction import (
    Arrays,
    Correction,
    CorrectionRequest,
    length,
)
from fl_edge.training.corrections.registry import correction_class
from fl_shared.protocol.abilities import LOGIT_ADJUSTMENT, needed
from fl_shared.tensors.manifest import Manifest, Vector, flatten, unflatten

if TYPE_CHECKING:
    import torch


class Observation:
    """The steps of one training. ``steps``: how many were seen that change a trained parameter.

    A training may have several optimisers: a step is one of any of them, and concerns the parameters that it changes.
    """

    def __init__(
        self,
        layout: Layout,
        correction: Correction | None,
        clip: float,
        needed: Sequence[str],
        arithmetic: Callable[[], AbstractContextManager[Any]] = nullcontext,
        private_sgd: Callable[..., Any] | None = None,
    ) -> None:
        """``clip``: the greatest norm of a gradient; 0: any. ``needed``: the abilities that the training needs.

        ``arithmetic``: within which gradients are changed. ``private_sgd``: see `steps.StepObserver`.
        """
        self.steps = 0
        self._layout = layout
        self._adjusted = False
        self._correction = correction
        self._clip = clip
        self._needed = needed
        self._arithmetic = arithmetic
        self._private_sgd = private_sgd
        self._numbers: Mapping[int, int] | None = None
        self._in_step: set[int] = set()
        """The numbers of the parameters whose gradients were changed for the step that is being taken."""
        self._stepped: set[int] = set()
        self._between: BetweenSteps | None = None
        """Of a training with torch that needs gradients to be changed."""

    def begin(self, parameters: Arrays, *, by_identity: bool = False) -> None:
        """Names the trained parameters. ``by_identity``: a step may name others as well, in any order."""
        if by_identity:
            self._numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
            if parameters and self._needs_gradients:
                self._between = BetweenSteps(parameters)
        if self._correction is not None:
            with self._arithmetic():
                self._correction.begin(parameters)

    @property
    def _needs_gradients(self) -> tuple[str, ...]:
        """The abilities that change gradients."""
        return tuple([name for name in self._needed if name != LOGIT_ADJUSTMENT])

    def enter_step(self) -> None:
        """See `steps.StepObserver`."""
        if self._between is not None:
            self._between.enter_step()

    def leave_step(self) -> None:
        """See `steps.StepObserver`."""
        if self._between is not None:
            self._between.leave_step()

    def before_step(
        self, parameters: Sequence[Any], gradients: Sequence[Any], *, nested: bool = False
    ) -> None:
        """See `steps.StepObserver`. ``nested``: within another step, which may have changed the same gradients."""
        numbers = self._numbers
        if not nested:
            self._in_step.clear()
        chosen = [
            (number, parameter, gradient)
            for position, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True))
            if gradient is not None
            and (number := position if numbers is None else numbers.get(id(parameter), -1)) >= 0
            and number not in self._in_step
        ]
        if not chosen:
            return
        self.steps += 1
        self._in_step.update(number for number, _, _ in chosen)
        self._stepped |= self._in_step
        if self._clip or self._correction is not None:
            with self._arithmetic():
                self._change(chosen)

    def _change(self, chosen: Sequence[tuple[int, Any, Any]]) -> None:
        gradients = [gradient for _, _, gradient in chosen]
        if self._clip and (norm := length(gradients)) > self._clip:
            for gradient in gradients:
                gradient *= self._clip / norm
        if self._correction is not None:
            scale = self._correction.prepare([number for number, _, _ in chosen], gradients)
            for number, parameter, gradient in chosen:
                self._correction.correct(number, parameter, gradient, scale)

    def logits_adjusted(self) -> None:
        """See `steps.StepObserver`."""
        self._adjusted = True

    def private_sgd(self) -> Callable[..., Any] | None:
        """See `steps.StepObserver`."""
        return self._private_sgd

    def end(self) -> tuple[dict[str, Vector], dict[str, Vector]]:
        """Returns what the correction makes of it: the sections of the update, and what stays on the edge.

        Raises ``TaskError`` if what the training needs could not be done.
        """
        for name in self._needed:
            if name == LOGIT_ADJUSTMENT and not self._adjusted:
                raise TaskError(
                    f"the run needs {name}, but the task does not train with the cross-entropy of fl_edge.tasks.sgd"
                )
            if not self.steps:
                raise TaskError(
                    f"the run needs {name}, but the task takes no step through torch.optim or fl_edge.tasks.sgd, "
                    "so that nothing reaches its gradients"
                )
        if self._correction is None:
            return {}, {}
        result = self._correction.end()
        return self._layout.vectors(result.sections), self._layout.vectors(result.own)

    def check_change(self, delta: Vector) -> None:
        """Raises ``TaskError`` if a parameter has changed without a step, and the training needs its gradient.

        ``delta``: the change of the model, shape (manifest.values,).
        """
        between = () if self._between is None else self._between.changed()
        for number, (name, change) in enumerate(self._layout.parts(delta).items()):
            if number in between or (number not in self._stepped and change.any()):
                self.refuse(
                    f"changes {name!r} otherwise than by steps of torch.optim or fl_edge.tasks.sgd; what no optimiser "
                    "trains needs requires_grad_(False)"
                )

    def refuse(self, why: str) -> None:
        """Raises ``TaskError`` if the training needs that gradients are changed: what the task does instead."""
        for name in self._needs_gradients:
            raise TaskError(f"the run needs {name}, but the task {why}")


class Layout:
    """Where the trained parameters lie in a vector of the model. Buffers and what is not trained are 0 there.

    ``names``: of the trained parameters, in their order.
    """

    def __init__(self, manifest: Manifest, names: Sequence[str]) -> None:
        self._manifest = manifest
        self._names = names

    def arrays(self, vectors: Mapping[str, Vector]) -> dict[str, list[Vector]]:
        """Returns the parameters' parts of each vector. Raises ``ValueError`` for a vector of another length."""
        return {name: list(self.parts(vector).values()) for name, vector in vectors.items()}

    def parts(self, vector: Vector) -> dict[str, Vector]:
        """Returns the parameters' parts of a vector by name. Raises ``ValueError`` for one of another length."""
        arrays = unflatten(vector, self._manifest)
        return {name: arrays[name] for name in self._names}

    def vectors(self, arrays: Mapping[str, Arrays]) -> dict[str, Vector]:
        """Returns each list of parameters as a vector."""
        empty = {spec.name: np.broadcast_to(np.float32(0), spec.shape) for spec in self._manifest.arrays}
        return {
            name: flatten(
                {**empty, **dict(zip(self._names, map(_array, parts), strict=True))}, self._manifest
            )
            for name, parts in arrays.items()
        }


def _array(one: Any) -> Vector:
    """Returns a tensor or an array as an array."""
    found: Vector = one if isinstance(one, np.ndarray) else one.detach().cpu().numpy()
    return found


def observation_of(
    request: CorrectionRequest | None,
    clip: float,
    adjustment: float,
    layout: Layout,
    device: torch.device | str | None = None,
    private_sgd: Callable[..., Any] | None = None,
) -> Observation:
    """Returns an observation that applies ``request``; with a device, for torch, and with its vectors there.

    Raises ``UnknownCorrectionError``, and ``ValueError`` for vectors of another length.
    """
    correction = None
    if request is not None:
        published, own = layout.arrays(request.published), layout.arrays(request.own)
        kind = correction_class(request.name)
        correction = kind(request.settings, _on(published, device), _on(own, device))
    abilities = needed(None if request is None else request.name, clip, adjustment)
    if device is None:
        return Observation(layout, correction, clip, abilities)
    import torch

    return Observation(layout, correction, clip, abilities, torch.no_grad, private_sgd)


def _on(arrays: Mapping[str, list[Vector]], device: torch.device | str | None) -> dict[str, list[Any]]:
    if device is None:
        return dict(arrays)
    import torch

    return {name: [torch.as_tensor(one, device=device) for one in parts] for name, parts in arrays.items()}


@contextmanager
def observing_torch(observation: Observation, parameters: Arrays) -> Iterator[None]:
    """Lets ``observation`` see all steps of this thread that change ``parameters``, with any optimisers of torch.

    With a closure, gradients are there only after it: it is replaced by one that lets ``observation`` see them then. An
    optimiser may step by the step of another one, or of its base class (SAM, Lookahead): no gradient is changed twice.

    Raises ``TaskError`` if a step has failed and the training has gone on, since nobody knows what was within it.
    """
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    stepping: list[torch.optim.Optimizer] = []

    def before(
        optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if steps.observer() is not observation:  # a step of another thread
            return None
        nested = bool(stepping)
        stepping.append(optimizer)
        if not nested:
            observation.enter_step()

        def observe() -> None:
            own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            observation.before_step(own, [parameter.grad for parameter in own], nested=nested)

        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)  # the first is the optimiser
        if closure is None:
            observe()
            return None

        def observed_closure() -> Any:
            loss = closure()
            observe()
            return loss

        return (args[0], *args[2:]), {**kwargs, "closure": observed_closure}

    def after(_optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if steps.observer() is observation:
            stepping.pop()
            if not stepping:
                observation.leave_step()

    observation.begin(parameters, by_identity=True)
    handles = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    try:
        with steps.observed(observation):
            yield
        if stepping:
            observation.refuse(f"has gone on after a step of {type(stepping[0]).__name__} that failed")
        observation.enter_step()  # what has changed after the last one
    finally:
        for handle in handles:
            handle.remove()
