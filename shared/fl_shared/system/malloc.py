"""Keeps freed memory in the process, because each message allocates and frees buffers of a few MB."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_MMAP_THRESHOLD: Final = 32 * 2**20
"""Bytes; glibc accepts no more (mallopt(3))."""
_TRIM_THRESHOLD: Final = 512 * 2**20
"""Bytes that may be free at the top of the heap."""


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed blocks of up to 32 MiB instead of giving them back to the kernel.

    A new block from the kernel costs a page fault for every 4 KiB. Call this once, before the first large
    buffer is allocated; at most 512 MiB are kept. Returns False, and changes nothing, if the C library is not
    glibc or the environment already tunes it (MALLOC_*_ or GLIBC_TUNABLES).
    """
    if os.name != "posix" or any(
        name in os.environ for name in ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    ):
        return False
    try:
        library = ctypes.CDLL(None)
        _ = library.gnu_get_libc_version
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
    )
