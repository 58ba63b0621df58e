"""Hides the edge's own data in the result of a training, in the worker: what leaves it has the noise, and its price."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from fl_edge.errors import TaskError
from fl_edge.session.privacy import Charge, OwnPrivacy
from fl_edge.training.executor import TrainedUpdate
from fl_edge.training.local_noise import add_noise
from fl_edge.workers.jobs import TrainJob, TrainOutcome
from fl_shared.privacy.gaussian_noise import KEY
from fl_shared.protocol.messages import UpdateMetrics

if TYPE_CHECKING:
    from fl_edge.training.example_level import PrivateSgd


class PrivateResult:
    """What one training job does for the privacy of its edge. ``sgd``: takes the steps; null if the task does."""

    def __init__(self, privacy: OwnPrivacy, job: TrainJob) -> None:
        self._privacy, self._job = privacy, job
        self.sgd: PrivateSgd | None = None
        if privacy.examples is not None:
            from fl_edge.training.example_level import PrivateSgd  # it imports torch

            self.sgd = PrivateSgd(privacy, job.spent)

    def noised(self, update: TrainedUpdate) -> TrainedUpdate:
        """Returns the update with the edge's own noise; a model that stays on the edge needs none.

        In a masked update no other number is left: the sum of a round would have it without noise.
        """
        if not self._privacy.is_asked or self._job.personal:
            return update
        if self._privacy.local is not None:
            if update.sections:
                names = ", ".join(update.sections)
                raise TaskError(
                    f"--dp-local hides the change of the model only, and this update has also {names}"
                )
            add_noise(update.delta, self._privacy.local, secrets.token_bytes(KEY))
        if self._job.masking is None:
            return update
        return replace(update, examples=1, metrics=UpdateMetrics())

    def charged(self, outcome: TrainOutcome) -> TrainOutcome:
        """Returns the outcome with what the edge must count before it sends it."""
        charges = () if self.sgd is None else self.sgd.charges
        if (noise := self._noise_of_update()) is not None:
            charges = (*charges, Charge("edge", noise))
        return replace(outcome, charges=charges, epsilon=None if self.sgd is None else self.sgd.epsilon)

    def _noise_of_update(self) -> float | None:
        """The noise multiplier that hides the whole update: its own, or that of the sum, if that is more."""
        found = [] if self._privacy.local is None else [self._privacy.local.noise]
        masking = self._job.masking
        if (
            self._privacy.least_noise is not None
            and masking is not None
            and masking.selected.privacy is not None
        ):
            found.append(masking.selected.privacy.noise)
        return max(found, default=None)
