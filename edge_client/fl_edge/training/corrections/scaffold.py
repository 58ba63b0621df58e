"""SCAFFOLD, the edge's half."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fl_edge.training.corrections.correction import Arrays, CorrectionResult, length


class Scaffold:
    """g ← g + c − cᵢ (Karimireddy et al. 2020, arXiv:1910.06378); cᵢ⁺ is the mean of the edge's own gradients.

    For plain SGD that is the paper's option II, cᵢ − c + (x − yᵢ) / (Kη). With momentum, another optimiser, decay or
    clipping it still is what option II is after, where Kη is not what the steps add up to. With several optimisers, it
    is the mean over the steps that change a parameter, and a step has the part of c − cᵢ that concerns its parameters.

    ``bound``: c − cᵢ is added with at most so many times the length of g; 0: any. The cᵢ of an edge with few classes is
    that of a model which knew nothing of them, and rounds later it would throw the model away. Without cᵢ, nothing is
    added.
    """

    def __init__(
        self, settings: Mapping[str, float], published: Mapping[str, Arrays], own: Mapping[str, Arrays]
    ) -> None:
        self._bound = settings["bound"]
        self._common, self._own = published.get("control"), own.get("control")
        self._shift: Arrays = ()
        self._total: list[Any] = []
        self._lengths: list[float] = []
        self._counts: list[int] = []

    def begin(self, parameters: Arrays) -> None:
        self._total = [0.0 * parameter for parameter in parameters]
        self._counts = [0] * len(self._total)
        if self._own is None:
            self._own = [0.0 * parameter for parameter in parameters]
            return
        common = self._total if self._common is None else self._common
        self._shift = [every - own for every, own in zip(common, self._own, strict=True)]
        self._lengths = [length([one]) for one in self._shift]

    def prepare(self, indices: Sequence[int], gradients: Arrays) -> float:
        added = math.hypot(*[self._lengths[index] for index in indices]) if self._lengths else 0.0
        if not added:
            return 0.0
        return min(1.0, self._bound * length(gradients) / added) if self._bound else 1.0

    def correct(self, index: int, parameter: Any, gradient: Any, scale: float) -> None:  # noqa: ARG002
        self._total[index] += gradient
        self._counts[index] += 1
        if scale:
            gradient += scale * self._shift[index]

    def end(self) -> CorrectionResult:
        assert self._own is not None
        mean = [total / max(1, count) for total, count in zip(self._total, self._counts, strict=True)]
        change = [new - own for new, own in zip(mean, self._own, strict=True)]
        return CorrectionResult({"control": change}, {"control": mean})
