"""Local training by minibatch SGD, over tensors in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fl_edge.errors import CancelledError
from fl_edge.tasks import steps as observed
from fl_edge.tasks.classes import log_prior
from fl_edge.tasks.epochs import EpochOrders, check_loss
from fl_edge.tasks.task import Examples, TrainReport
from fl_shared.protocol.messages import TrainingSettings

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def sgd(
    model: nn.Module,
    examples: Examples,
    settings: TrainingSettings,
    seed: np.random.SeedSequence,
    cancelled: Callable[[], bool],
    loss_of: LossFunction = functional.cross_entropy,
    orders: EpochOrders | None = None,
) -> TrainReport:
    """Trains ``model`` in place. The last minibatch of an epoch may be smaller (`batches`). Momentum starts at zero.

    ``loss_of`` maps the model's output and the labels to a scalar, the mean over the minibatch. ``orders``: the order
    of the examples in each epoch; None: torch draws it from ``seed``. The same seed, number of threads and version of
    torch give the same bits. With cross-entropy, the logits are adjusted if the settings say so. With ``--dp-sgd``,
    single examples are hidden, and neither ``seed`` nor ``orders`` count (`fl_edge.training.example_level`).

    Raises ``CancelledError``, and ``DivergedError`` if the loss of an epoch is not finite.
    """
    if (private := observed.private_sgd()) is not None:
        report: TrainReport = private(model, examples, settings, cancelled, loss_of)
        return report
    model.train()
    device = next(model.parameters()).device
    all_inputs, all_labels = examples.tensors(device)
    orders = _torch_orders(seed) if orders is None else orders
    if settings.logit_adjustment and loss_of is functional.cross_entropy:
        loss_of = _AdjustedCrossEntropy(all_labels, settings.logit_adjustment)
        observed.logits_adjusted()
    optimizer = SgdOptimizer(model, settings.lr, settings.momentum)
    minibatches = _minibatches(model, len(examples), settings.batch_size)
    steps, loss = 0, math.nan
    for epoch in range(settings.epochs):
        order = torch.as_tensor(orders(len(examples)), device=device)
        # One gather for each epoch; each minibatch is then a view.
        inputs, labels = all_inputs[order], all_labels[order]
        total = torch.zeros((), dtype=torch.float64, device=device)
        for batch in minibatches:
            if cancelled():
                raise CancelledError("training was cancelled")
            x, y = inputs[batch], labels[batch]
            step_loss = loss_of(model(x), y)
            step_loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += step_loss.detach() * len(y)
            steps += 1
        loss = float(total) / len(examples)
        check_loss(loss, epoch, settings)
    return TrainReport(steps, loss)


def batches(examples: int, size: int, *, least: int = 2) -> list[slice]:
    """Returns the minibatches of ``size`` examples; a last one with fewer than ``least`` joins the one before it.

    So BatchNorm, which cannot train on a single example, gets none, unless there is but one or ``size`` is 1.
    """
    starts = list(range(0, examples, size))
    if len(starts) > 1 and examples - starts[-1] < least:
        starts.pop()
    return list(itertools.starmap(slice, itertools.pairwise([*starts, examples])))


def _minibatches(model: nn.Module, examples: int, size: int) -> list[slice]:
    """Returns the minibatches. None of a model with BatchNorm has a single example, whose variance is 0.

    If there is but one example, or ``size`` is 1, its BatchNorm uses its running statistics.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    found = batches(examples, size, least=2 if norms else 1)
    if any(batch.stop - batch.start == 1 for batch in found):
        for norm in norms:
            norm.eval()
    return found


def _torch_orders(seed: np.random.SeedSequence) -> EpochOrders:
    # The order is drawn on the CPU, so that it does not depend on the device.
    generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0]))
    return lambda examples: torch.randperm(examples, generator=generator)


class _AdjustedCrossEntropy:
    """CE(z + τ log p, y), p the frequencies of the classes in ``labels`` (see `classes.log_prior`)."""

    def __init__(self, labels: torch.Tensor, tau: float) -> None:
        self._labels, self._tau = labels, tau
        self._shift: torch.Tensor | None = None

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self._shift is None:
            prior = log_prior(self._labels.cpu().numpy(), logits.shape[1])
            self._shift = torch.as_tensor(self._tau * prior, device=logits.device)
        return functional.cross_entropy(logits + self._shift, labels)


class SgdOptimizer:
    """Computes the same bits as ``torch.optim.SGD``, whose first use takes a second and imports 900 modules."""

    def __init__(self, model: nn.Module, lr: float, momentum: float) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._velocities: list[torch.Tensor | None] = [None] * len(self._parameters)
        self._lr, self._momentum = lr, momentum

    @torch.no_grad()
    @observed.step()
    def step(self) -> None:
        observed.before_step(self._parameters, [parameter.grad for parameter in self._parameters])
        for i, parameter in enumerate(self._parameters):
            change, parameter.grad = parameter.grad, None
            if change is None:
                continue
            if self._momentum:
                velocity = self._velocities[i]
                change = change if velocity is None else velocity.mul_(self._momentum).add_(change)
                self._velocities[i] = change
            parameter.add_(change, alpha=-self._lr)
