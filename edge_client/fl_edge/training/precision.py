"""The arithmetic of training in torch: float32, or bf16 where the device computes in it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch

from fl_shared.protocol.messages import Precision

CPU_CAPABILITIES: Final = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Names of `torch.cpu.get_capabilities`, of x86-64 and Arm, any of which means products of bf16 numbers."""


def has_bf16(device: str) -> bool:
    """Returns whether ``device`` multiplies bf16 numbers itself. A CPU without that takes ten times as long for a step.

    A version of torch that cannot tell (before 2.11) counts as no.
    """
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in CPU_CAPABILITIES)


def arithmetic(precision: Precision, device: torch.device | str) -> AbstractContextManager[object]:
    """Returns the context to train in. Weights, gradients and sums stay float32; products are bf16 if asked for.

    There is no cache of converted weights, since it would outlive the step that changes them.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16, cache_enabled=False)
