"""The device that the edges of a process train on."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Final

from fl_edge.tasks.synthetic import NAME_PREFIX as SYNTHETIC
from fl_edge.training.factory import has_torch
from fl_shared.errors import UserError
from fl_shared.system.invocation import install_command

LOG: Final = logging.getLogger(__name__)


def never_needs_torch(task: str | None) -> bool:
    """Whether edges that train only ``task``, if that is known, will never need torch."""
    return task is not None and task.startswith(SYNTHETIC)


def training_device(name: str, task: str | None, *, light: bool) -> str:
    """Returns the name of the device; ``auto`` stands for the one that torch finds.

    ``task``: the only one that the edges train, if it is known. Raises ``UserError`` if the device is not there, or
    cannot be used without torch (``light``). Another process asks torch, since this one never imports it.
    """
    if light and name == "cuda":
        reason = "with --light" if has_torch() else f"without torch: {install_command('edge')}"
        raise UserError(f"--device {name} cannot be used {reason}")
    if name == "cpu" or light or never_needs_torch(task):
        return "cpu"
    script = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    try:
        device = subprocess.run(  # noqa: S603  our own interpreter
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
        ).stdout.strip()
    except (subprocess.SubprocessError, OSError) as error:
        raise UserError(
            f"--device {name}: torch cannot tell which devices there are ({error}); use cpu or cuda"
        ) from None
    if name not in ("auto", device):
        raise UserError(f"--device {name}: torch finds none on this machine; expected cpu or auto")
    LOG.info("training on %s", device)
    return device
