"""FedProx, the edge's half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fl_edge.training.corrections.correction import Arrays, CorrectionResult


class Prox:
    """g ← g + μ(w − w₀), w₀ the base (Li et al. 2020, arXiv:1812.06127, equation 2): edges stay near the base.

    ``mu``: μ, at least 0. Keeps nothing, returns nothing.
    """

    def __init__(
        self, settings: Mapping[str, float], _published: Mapping[str, Arrays], _own: Mapping[str, Arrays]
    ) -> None:
        self._mu = settings["mu"]
        self._base: list[Any] = []

    def begin(self, parameters: Arrays) -> None:
        self._base = [1.0 * parameter for parameter in parameters]

    def prepare(self, indices: Sequence[int], gradients: Arrays) -> float:  # noqa: ARG002
        return self._mu

    def correct(self, index: int, parameter: Any, gradient: Any, scale: float) -> None:
        if scale:  # even 0 would change a bit of -0.0
            gradient += scale * (parameter - self._base[index])

    def end(self) -> CorrectionResult:
        return CorrectionResult()
