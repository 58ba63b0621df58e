"""Modules whose buffers have names that ``register_buffer`` does not take: with a dot, or that of an attribute."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from fl_shared.tensors.manifest import Vector


def add_buffers(module: nn.Module, buffers: Mapping[str, torch.Tensor]) -> None:
    """Adds buffers with any names."""
    module._buffers |= buffers


class BufferedModule(nn.Module):
    """A module whose task reads all its arrays, and replaces buffers."""

    @property
    def arrays(self) -> dict[str, Vector]:
        """The weights and buffers; views if this model is in the CPU's memory."""
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}

    def set_buffers(self, buffers: Mapping[str, Vector]) -> None:
        """Replaces the values of buffers."""
        self.load_state_dict({n: torch.from_numpy(value) for n, value in buffers.items()}, strict=False)
