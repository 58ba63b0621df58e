"""Hides the edge's own data in the result of a training, in the worker: what leaves it has the noise, and its price."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fl_edge.session.privacy import OwnPrivacy
from fl_edge.training.executor import TrainedUpdate
from fl_edge.workers.jobs import TrainJob, TrainOutcome
from fl_shared.protocol.messages import UpdateMetrics

if TYPE_CHECKING:
    from fl_edge.training.example_level import PrivateSgd


class PrivateResult:
    """What one training job does for the privacy of its edge. ``sgd``: takes the steps; null if the task does."""

    def __init__(self, privacy: OwnPrivacy, job: TrainJob) -> None:
        self.sgd: PrivateSgd | None = None
        if privacy.examples is not None:
            from fl_edge.training.example_level import PrivateSgd  # it imports torch

            self.sgd = PrivateSgd(privacy, job.spent)

    def without_numbers(self, update: TrainedUpdate) -> TrainedUpdate:
        """Returns an update that has no number without noise, which a masked sum would have, too."""
        return update if self.sgd is None else replace(update, examples=1, metrics=UpdateMetrics())

    def charged(self, outcome: TrainOutcome) -> TrainOutcome:
        """Returns the outcome with what the edge must count before it sends it."""
        if self.sgd is None:
            return outcome
        return replace(outcome, charges=self.sgd.charges, epsilon=self.sgd.epsilon)
