"""The mean of the last versions, with which edges evaluate and predict (``--serve average:K``).

Every value, of buffers too, is the sum in float64 from the first version to the last, over their number. So the mean
has the same bits on every machine, and a mean of variances is not below 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.storage.checkpoint import Checkpoints, Model
from fl_shared.errors import RunFailed
from fl_shared.tensors.manifest import Vector

BLOCK: Final = 2**20
"""Values of each version that are read at a time."""


def mean_of(versions: Sequence[Vector]) -> Vector:
    """Returns the mean of equally long vectors, at least one. They may be maps of files."""
    mean = np.empty(len(versions[0]), np.float32)
    for start in range(0, len(mean), BLOCK):
        total = np.zeros(len(mean[start : start + BLOCK]), np.float64)
        for weights in versions:
            total += weights[start : start + BLOCK]
        mean[start : start + BLOCK] = total / len(versions)
    return mean


def make_mean(
    checkpoints: Checkpoints, first: int, last: int, newest: Model, metadata: Mapping[str, str]
) -> Model:
    """Writes the mean of the versions ``first`` to ``last``, which is ``newest``. All of them have checkpoints.

    Raises ``OSError``, and ``RunFailed`` if a checkpoint is missing or damaged.
    """
    try:
        mapped = [checkpoints.memory_mapped(number, newest) for number in range(first, last + 1)]
    except (ValueError, FileNotFoundError) as error:
        raise RunFailed(f"the mean of versions {first} to {last} cannot be made: {error}") from None
    weights = mean_of([model.weights for model in mapped])
    mean = Model.of(newest.manifest, weights, encoding=newest.encoding)
    return checkpoints.write_mean(last, mean, {"first_version": str(first), **metadata})


def read_mean(
    checkpoints: Checkpoints,
    settings: Settings,
    last: int,
    newest: Model,
    digest: str,
    metadata: Mapping[str, str],
) -> Model:
    """Returns the mean that was served after version ``last``, which is ``newest``; it has this digest.

    It is made again, with this ``metadata``, if its file is missing or damaged. Raises ``RunFailed`` if that is not
    possible.
    """
    try:
        return checkpoints.read_mean(last, digest)
    except RunFailed as damage:
        first = settings.first_served(last)
        assert first is not None, "the journal says that a mean was served"
        try:
            made = make_mean(checkpoints, first, last, newest, metadata)
        except OSError as error:
            raise RunFailed(f"{damage}; {error}") from None
        if made.digest != digest:
            raise RunFailed(f"{damage}; the checkpoints of the versions have another mean") from None
        return made
