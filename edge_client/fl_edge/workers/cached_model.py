"""A model that a worker keeps for the jobs that name its digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fl_edge.workers.protocol import CacheModel
from fl_shared.protocol.messages import Partition
from fl_shared.tensors.encodings.section import SectionFormat, decoded
from fl_shared.tensors.manifest import Vector


@dataclass(slots=True)
class CachedModel:
    """A cached model, and its predictors by task and edge, each made with the first request that needs it."""

    model: CacheModel
    predictors: dict[
        tuple[str, str, Partition | None], tuple[str | None, Callable[[bytes], dict[str, Any]]]
    ] = field(default_factory=dict)
    """Each with the digest of the local part that it was made with."""
    is_finite: bool = False
    """Whether its values have been checked."""

    def weights(self) -> Vector:
        """Returns a writable copy-on-write view, or a copy, since torch needs writable arrays."""
        form = SectionFormat.of(self.model.encoding, self.model.manifest)
        values = form.values_in(self.model.weights.private_view())
        return values if isinstance(values, np.ndarray) else decoded(values)

    def check_finite(self) -> None:
        """Raises ``ValueError`` for a value that is not finite. Once for all jobs, since it reads every page.

        Without a copy: NaN carries over to the minimum and the maximum.
        """
        if self.is_finite:
            return
        weights = self.weights()
        if len(weights) and not np.isfinite((weights.min(), weights.max())).all():
            index = int(np.argmin(np.isfinite(weights)))
            raise ValueError(
                f"the received model: value {index} is {weights[index]}, expected a finite number"
            )
        self.is_finite = True
