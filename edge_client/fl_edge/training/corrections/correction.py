"""What a correction must provide. Its code is on the edge: only its name, settings and vectors travel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fl_shared.tensors.manifest import Vector

Arrays = Sequence[Any]
"""Tensors of torch on one device, or arrays of NumPy: one for each trained parameter, always in the same order."""


@dataclass(frozen=True, slots=True, eq=False)
class CorrectionRequest:
    """The correction that a run asks for, with its settings.

    ``published``: the vectors that the aggregator publishes with the base; ``own``: those that the edge has kept.
    Each is by name, of shape (manifest.values,). Both are empty before there are any.
    """

    name: str
    settings: Mapping[str, float]
    published: Mapping[str, Vector] = field(default_factory=dict)
    own: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class CorrectionResult:
    """What comes of a training besides the change: ``sections`` go with the update, ``own`` stays on the edge."""

    sections: Mapping[str, Arrays] = field(default_factory=dict)
    own: Mapping[str, Arrays] = field(default_factory=dict)


class Correction(Protocol):
    """The edge's half of a correction. The aggregator's has the same name and settings."""

    def __init__(
        self, settings: Mapping[str, float], published: Mapping[str, Arrays], own: Mapping[str, Arrays]
    ) -> None:
        """For the vectors, see `CorrectionRequest`."""

    def begin(self, parameters: Arrays) -> None:
        """Called before the first step, with the parameters of the base, which the training changes in place."""

    def correct(self, index: int, parameter: Any, gradient: Any, scale: float) -> None:
        """Changes the gradient of parameter number ``index`` in place, before a step. ``scale``: from `prepare`."""

    def prepare(self, indices: Sequence[int], gradients: Arrays) -> float:
        """Returns what each call of `correct` in this step gets. ``gradients``: of the parameters that it changes."""

    def end(self) -> CorrectionResult:
        """Called after the last step of all optimisers. There was at least one."""


def length(arrays: Arrays) -> float:
    """Returns the L2 norm of all of them together."""
    if not arrays:
        return 0.0
    if isinstance(arrays[0], np.ndarray):
        return math.sqrt(math.fsum(float(np.vdot(one, one)) for one in arrays))
    import torch

    return float(torch.stack(torch._foreach_norm(list(arrays))).norm())
