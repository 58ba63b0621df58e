"""Imports torch in a worker, before there is work."""

from __future__ import annotations

import gc

from fl_shared.system.invocation import install_command


def import_torch(device: str) -> str | None:
    """Imports torch and begins to use ``device``. Returns why that cannot be done; null if it can."""
    # What the import makes stays: looking for garbage in it would cost a seventh of its time.
    gc.disable()
    try:
        import torch

        from fl_edge.training.local_training import configure_torch

        configure_torch()
        torch.zeros(1, device=device)
    except ImportError as error:
        return f"torch cannot be imported ({error}): {install_command('edge')}"
    except Exception as error:  # torch raises errors of several types for a missing device
        return f"--device {device} cannot be used: {error}"
    finally:
        gc.freeze()
        gc.enable()
    return None
