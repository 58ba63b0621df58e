"""Finds parameters that change between two steps of an optimizer, where nothing reaches their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

_SUMMED_AS: Final = {2: "int16", 4: "int32", 8: "int64"}
"""Integers of the size of a parameter's numbers."""


class BetweenSteps:
    """The sums of the parameters' bits, which depend neither on the order in memory nor on the device.

    What has changed is kept on the device until `changed` asks, as each look at it would wait for that device.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        import torch

        self._parameters = parameters
        self._sums = self._now()
        self._changed = torch.zeros_like(self._sums, dtype=torch.bool)

    def enter_step(self) -> None:
        """Must be called before each step, and after the last one: compares with the end of the step before."""
        now = self._now()
        self._changed = self._changed.to(now.device) | (self._sums.to(now.device) != now)

    def leave_step(self) -> None:
        """Must be called after each step."""
        self._sums = self._now()

    def changed(self) -> list[int]:
        """Returns the numbers of the parameters that have changed outside a step."""
        found: list[int] = self._changed.nonzero().flatten().tolist()
        return found

    def _now(self) -> torch.Tensor:
        import torch

        sums = []
        for parameter in self._parameters:
            integers = getattr(torch, _SUMMED_AS[parameter.element_size()])
            sums.append(parameter.detach().view(integers).sum(dtype=integers).to(self._parameters[0].device))
        return torch.stack(sums)
