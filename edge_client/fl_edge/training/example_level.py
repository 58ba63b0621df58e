"""Trains so that what a model has learnt hides each single example: DP-SGD, with noise and batches of the edge's own.

Abadi et al. 2016, "Deep Learning with Differential Privacy", arXiv:1607.00133, algorithm 1. Each step draws each
example with the same probability, computes the gradient of each drawn one alone, shortens it to the clip, adds them up,
and adds Gaussian noise. ε is that of Opacus' accountants (Gopi, Lee, Wutschitz 2021, arXiv:2106.02848).

Chance is that of the operating system: who knows the seed of a run would know noise and batches. Sums are put on a grid
of whole multiples of 2^−k, on which the noise is a rounded Gaussian, so that no low bits of floats tell what was added
(`gaussian_noise`). A clip is shortened by more than what rounding can add to a sum.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap

from fl_edge.errors import BudgetSpentError, CancelledError, TaskError, UnusableModelError
from fl_edge.session.privacy import Charge, OwnPrivacy, added
from fl_edge.tasks.epochs import check_loss
from fl_edge.tasks.sgd import LossFunction, SgdOptimizer
from fl_edge.tasks.task import Examples, Task, TrainReport
from fl_shared.privacy.gaussian_noise import KEY, noise
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Manifest, Vector, unflatten

LOG: Final = logging.getLogger(__name__)

MIXING: Final = (nn.modules.batchnorm._BatchNorm, nn.modules.batchnorm._LazyNormBase)
"""Layers whose output for an example depends on the other ones."""
SLACK: Final = 1e-5
"""The part of the clip that the rounding of float64 may take; that to the grid takes √d units for d values."""
VALUES_AT_A_TIME: Final = 2**25
"""Of the gradients of single examples, 128 MB."""
CACHED_VALUES: Final = 2**17
"""Gradients become float64 in blocks of so many, 1 MB: in one piece, a step takes nearly three times as long."""
NOISE_BITS: Final = 28
"""The noise's standard deviation is more than 2^(NOISE_BITS − 1) units of the grid, and at most 2^NOISE_BITS.

On a finer grid the grain of float64 would tell something in each of thousands of steps (`gaussian_noise`).
"""
PRV_BELOW: Final = 50.0
"""Opacus' tighter accountant takes minutes and GBs for a larger ε, which promises nothing anyway."""


def check_model(task: Task, model: nn.Module) -> None:
    """Raises ``UnusableModelError``, which names the layer, if single examples cannot be hidden in the task's model."""
    for name, module in model.named_modules():
        if isinstance(module, MIXING):
            raise UnusableModelError(
                f"task {task.name}: --dp-sgd cannot be used: layer {name!r} ({type(module).__name__}) mixes examples; "
                "expected a model without batch normalization, for example with GroupNorm"
            )
    if type(task).finish is not Task.finish:
        raise UnusableModelError(
            f"task {task.name}: --dp-sgd cannot be used: the task shares statistics of this edge's data (finish)"
        )


def epsilon_of_examples(charges: Sequence[Charge], delta: float) -> float:
    """Returns the ε of all these steps together, by Opacus' accountants: an upper bound of the least one.

    The order of steps does not matter. ``delta``: of (ε, δ). Raises ``TaskError`` without Opacus.
    """
    history = [(one.noise, one.rate, one.steps) for one in added((), charges) if one.unit == "example"]
    if not history:
        return 0.0
    if not all(noise for noise, _, _ in history):
        return math.inf
    try:
        from opacus.accountants import PRVAccountant, RDPAccountant
    except ImportError as error:
        raise TaskError(f"--dp-sgd: opacus cannot be imported: {error}") from None
    found = math.inf
    for accountant in (RDPAccountant(), PRVAccountant()):
        accountant.history = list(history)
        found = min(found, float(accountant.get_epsilon(delta=delta)))
        if found > PRV_BELOW:
            break
    return found


class PrivateSgd:
    """The steps of one training, in place of those of `fl_edge.tasks.sgd.sgd`.

    ``charges``: what it has cost so far. ``epsilon``: of the edge's data, with what was ``spent`` before.
    """

    def __init__(self, privacy: OwnPrivacy, spent: Sequence[Charge] = ()) -> None:
        assert privacy.examples is not None
        self._noise, self._clip = privacy.examples.noise, privacy.examples.clip
        self._privacy, self._spent = privacy, tuple(spent)
        self.charges: tuple[Charge, ...] = ()
        self.epsilon = 0.0
        self._names: Callable[[Vector, Vector], str] = lambda _one, _other: ""
        self._vector: Callable[[], Vector] = lambda: np.empty(0, np.float32)
        self._known: Vector = np.empty(0, np.float32)

    def begin(self, manifest: Manifest, vector: Callable[[], Vector]) -> None:
        """Called before the training. ``vector`` returns what is shared as it is then, shape (manifest.values,)."""
        self._vector, self._known = vector, vector()

        def names(one: Vector, other: Vector) -> str:
            pairs = zip(unflatten(one, manifest).items(), unflatten(other, manifest).values(), strict=True)
            return next(name for (name, first), second in pairs if not np.array_equal(first, second))

        self._names = names

    def checked(self, vector: Vector) -> Vector:
        """Returns what is shared. Raises ``TaskError`` if anything of it has changed besides the steps."""
        if not self.charges:
            raise TaskError(
                "this edge needs --dp-sgd, but the task does not train with fl_edge.tasks.sgd, so that nothing hides "
                "its examples"
            )
        if not np.array_equal(self._known, vector):
            raise TaskError(
                f"this edge needs --dp-sgd, but the task changes array {self._names(self._known, vector)!r} besides "
                "fl_edge.tasks.sgd, so that nothing hides its examples"
            )
        return vector

    def train(
        self,
        model: nn.Module,
        examples: Examples,
        settings: TrainingSettings,
        cancelled: Callable[[], bool],
        loss_of: LossFunction,
    ) -> TrainReport:
        """Trains ``model`` in place, see `fl_edge.tasks.sgd.sgd`. The loss is that of the examples drawn last.

        Raises ``BudgetSpentError`` before the first step if the steps would cost too much, and ``TaskError``.
        """
        if settings.logit_adjustment:
            raise TaskError("--dp-sgd: logit adjustment mixes examples, and cannot be used")
        count = len(examples)
        rate = min(1.0, settings.batch_size / count)
        steps_an_epoch = math.ceil(count / settings.batch_size)
        charge = Charge("example", self._noise, rate, settings.epochs * steps_an_epoch)
        self._account(charge)
        self.checked(self._vector())
        model.train()
        device = next(model.parameters()).device
        inputs, labels = examples.tensors(device)
        parameters = [one for one in model.parameters() if one.requires_grad]
        gradients_of = per_example_gradients(model, loss_of)
        values = sum(one.numel() for one in parameters)
        at_a_time, longest = max(1, VALUES_AT_A_TIME // max(1, values)), self._longest(values)
        optimizer = SgdOptimizer(model, settings.lr, settings.momentum)
        loss = 0.0
        for epoch in range(settings.epochs):
            total, drawn_in_all = 0.0, 0
            for _ in range(steps_an_epoch):
                drawn = torch.as_tensor(_drawn(count, rate), device=device)
                sums = [torch.zeros_like(one, dtype=torch.float64) for one in parameters]
                for part in torch.split(drawn, at_a_time) if len(drawn) else ():
                    if cancelled():
                        raise CancelledError("training was cancelled")
                    gradients, losses = gradients_of(inputs[part], labels[part])
                    for sum_, one in zip(sums, clipped_sums(gradients, longest), strict=True):
                        sum_ += one
                    total += float(losses.double().sum())
                drawn_in_all += len(drawn)
                self._noisy_step(parameters, sums, optimizer, rate * count)
            if drawn_in_all:
                loss = total / drawn_in_all
            check_loss(loss, epoch, settings)
        self._known = self._vector()
        return TrainReport(settings.epochs * steps_an_epoch, loss)

    def _account(self, charge: Charge) -> None:
        before, delta, budget = (*self._spent, *self.charges), self._privacy.delta, self._privacy.budget
        epsilon = epsilon_of_examples((*before, charge), delta)
        if budget is not None and epsilon > budget.epsilon:
            problem = budget.problem(epsilon_of_examples(before, delta), epsilon)
            raise BudgetSpentError(problem)
        self.charges, self.epsilon = (*self.charges, charge), epsilon

    def _noisy_step(
        self,
        parameters: Sequence[nn.Parameter],
        sums: Sequence[torch.Tensor],
        optimizer: SgdOptimizer,
        expected: float,
    ) -> None:
        """Takes a step along the noisy sums, divided by the ``expected`` number of drawn examples."""
        whole = torch.cat([one.flatten() for one in sums]).cpu().numpy()
        noisy = torch.from_numpy(self._with_noise(whole) / expected)
        start = 0
        for parameter in parameters:
            stop = start + parameter.numel()
            gradient = noisy[start:stop].view(parameter.shape).to(parameter.device, parameter.dtype)
            parameter.grad, start = gradient, stop
        optimizer.step()

    @property
    def _places(self) -> int:
        """The binary places of the grid."""
        return NOISE_BITS - math.ceil(math.log2(self._noise * self._clip))

    def _longest(self, values: int) -> float:
        """To what gradients of so many values are shortened, so that a rounded sum changes by the clip at most."""
        rounding = math.ldexp(math.sqrt(values), -self._places) if self._noise else 0.0
        return self._clip * (1 - SLACK) - rounding

    def _with_noise(
        self, sums: np.ndarray[Any, np.dtype[np.float64]]
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        if not self._noise:  # only a test trains without
            return sums
        deviation, places = self._noise * self._clip, self._places
        integers = np.rint(np.ldexp(sums, places)).astype(np.int64)
        integers += noise([(os.urandom(KEY), math.ldexp(deviation, places))], 0, len(sums))
        return np.asarray(np.ldexp(integers.astype(np.float64), -places))


PerExample = Callable[[torch.Tensor, torch.Tensor], tuple[list[torch.Tensor], torch.Tensor]]


def per_example_gradients(model: nn.Module, loss_of: LossFunction) -> PerExample:
    """Returns what computes the gradients of single examples: for each trained parameter, shape (examples, *its own).

    Also the losses, shape (examples,). Each example is a batch of its own, so that no layer can mix them: by ``vmap``,
    or one after the other if the model has a layer that ``vmap`` does not know, such as a GRU.
    """
    parameters = {name: one.detach() for name, one in model.named_parameters() if one.requires_grad}

    def loss_of_one(
        values: dict[str, torch.Tensor], inputs: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        output = functional_call(model, values, (inputs.unsqueeze(0),))
        loss: torch.Tensor = loss_of(output, label.unsqueeze(0))
        return loss

    def one_after_the_other(
        inputs: torch.Tensor, labels: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        found = [_single(model, loss_of, inputs[k : k + 1], labels[k : k + 1]) for k in range(len(labels))]
        columns = zip(*(gradients for gradients, _ in found), strict=True)
        return [torch.stack(one) for one in columns], torch.stack([loss for _, loss in found])

    def all_at_once(inputs: torch.Tensor, labels: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        try:
            gradients, losses = together(parameters, inputs, labels)
        except RuntimeError as error:
            _say_slow(type(model).__name__, str(error).partition("\n")[0][:200])
            return one_after_the_other(inputs, labels)
        return list(gradients.values()), losses

    together = vmap(grad_and_value(loss_of_one), in_dims=(None, 0, 0), randomness="different")
    return all_at_once


@lru_cache(maxsize=16)
def _say_slow(model: str, reason: str) -> None:
    LOG.info("--dp-sgd: %s takes examples one after the other: %s", model, reason)


def _single(
    model: nn.Module, loss_of: LossFunction, inputs: torch.Tensor, labels: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    parameters = [one for one in model.parameters() if one.requires_grad]
    loss = loss_of(model(inputs), labels)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    gradients = tuple(
        torch.zeros_like(parameter) if one is None else one
        for one, parameter in zip(found, parameters, strict=True)
    )
    return gradients, loss.detach()


def clipped_sums(gradients: Sequence[torch.Tensor], clip: float) -> list[torch.Tensor]:
    """Returns the sums over examples of their gradients, each of which is first shortened to the L2 norm ``clip``.

    ``gradients``: of each parameter, shape (examples, …). The sums are float64. An example whose gradient is not finite
    counts as 0.
    """
    rows = [one.flatten(1) for one in gradients]
    squares = [part.double().square().sum(1) for one in rows for part in _blocks(one)]
    norms = torch.stack(squares).sum(0).sqrt()
    finite = torch.isfinite(norms)
    if not bool(finite.all()):
        rows = [torch.where(finite[:, None], one, 0.0) for one in rows]
    factors = torch.where(finite, (clip / norms).clamp(max=1.0), 0.0)
    return [
        torch.cat([factors @ part.double() for part in _blocks(row)]).view(one.shape[1:])
        for row, one in zip(rows, gradients, strict=True)
    ]


def _blocks(rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Returns the columns of ``rows`` in blocks that stay in the cache as float64."""
    return torch.split(rows, max(1, CACHED_VALUES // len(rows)), dim=1)


def _drawn(count: int, rate: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the numbers of the drawn examples: each with the probability ``rate``, apart from all others."""
    if rate >= 1.0:
        return np.arange(count)
    words = np.frombuffer(os.urandom(8 * count), np.uint64)
    return np.flatnonzero(words < np.uint64(int(rate * 2**64)))
