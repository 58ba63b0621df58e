"""What an edge says of its software and its machine when it registers (protocol, 4.13). Imports no torch."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from fl_edge.runtime.device import never_needs_torch
from fl_edge.runtime.worker_setup import usable_cores
from fl_shared.protocol.messages import Environment

MEMORY_STEP: Final = 64 * 2**20
"""Bytes to which the memory is rounded, so that like machines are alike."""


def environment_of(task: str | None, *, light: bool) -> Environment:
    """Returns where this process runs.

    An edge that is ``light``, or whose ``task`` never needs torch, computes with numpy.
    """
    return Environment(
        fl_mqtt=_version("fl-mqtt"),
        python=_described(platform.python_version()),
        library=_library("numpy" if light or never_needs_torch(task) else "torch"),
        platform=_described(f"{platform.system()} {platform.machine()}".strip()),
        memory=_memory(),
        cores=usable_cores(),
    )


def _library(name: str) -> str | None:
    found = _version(name)
    return None if found is None else f"{name} {found}"


def _version(package: str) -> str | None:
    try:
        return _described(version(package))
    except PackageNotFoundError:
        return None


def _described(text: str) -> str | None:
    """The first 48 characters, with ``?`` for each that is not printable ASCII; null if there are none."""
    return "".join(one if " " <= one <= "~" else "?" for one in text[:48]) or None


def _memory() -> int | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # this system does not know
        return None
    return max(0, round(size / MEMORY_STEP)) * MEMORY_STEP
