"""Memory that processes share: a large vector is passed on as a file descriptor and is not copied.

The memory has no name in any directory, so the kernel frees it when the last process that has it ends, even
by a crash.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from typing import Final, Self

_HAS_MEMFD: Final = hasattr(os, "memfd_create")
MAX_KEPT: Final = 256 * 2**20
"""Bytes of memory that a `MemoryPool` keeps for later."""


class _File:
    """An open file without a name; it is closed when the last reference to it is gone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_inheritable(fd, False)

    def __del__(self) -> None:
        os.close(self.fd)


class SharedBytes:
    """``size`` bytes from ``start`` of a file in memory, mapped when `view` or `private_view` is used."""

    __slots__ = ("_file", "_view", "size", "start")

    def __init__(self, file: _File, start: int, size: int) -> None:
        self._file = file
        self._view: memoryview | None = None
        self.start = start
        self.size = size

    @classmethod
    def new(cls, size: int) -> Self:
        """New memory of ``size`` zero bytes. Raises ``OSError`` if there is no room for them."""
        if _HAS_MEMFD:
            file = _File(os.memfd_create("fl-vector"))
        else:
            # Without memfd_create (macOS): an unnamed file on disk, which stays in the page cache.
            with tempfile.TemporaryFile() as scratch:
                file = _File(os.dup(scratch.fileno()))
        os.ftruncate(file.fd, max(1, size))  # an empty file cannot be mapped
        return cls(file, 0, size)

    @classmethod
    def copy_of(cls, data: bytes | memoryview) -> Self:
        """New memory that holds a copy of ``data``."""
        shared = cls.new(len(data))
        shared.view[:] = data
        return shared

    @classmethod
    def from_fd(cls, fd: int, start: int, size: int) -> Self:
        """The memory that another process has sent. Owns ``fd``. Raises ``ValueError`` if it is too small."""
        file = _File(fd)
        file_size = os.fstat(fd).st_size
        if start < 0 or size < 0 or start + size > file_size:
            raise ValueError(f"{size} bytes from {start} on, but the memory has only {file_size} bytes")
        return cls(file, start, size)

    @property
    def fd(self) -> int:
        """The file descriptor to send to another process; it stays open as long as this object exists."""
        return self._file.fd

    @property
    def view(self) -> memoryview:
        """A writable view of the bytes; all processes that share them see what is written."""
        if self._view is None:
            self._view = self._mapped(mmap.ACCESS_WRITE)
        return self._view

    def private_view(self) -> memoryview:
        """A writable view whose changes only this process sees; only pages that are written to are copied."""
        return self._mapped(mmap.ACCESS_COPY)

    def locked(self) -> SharedBytes | None:
        """The same memory through another open file, which is locked until it is dropped; None without ``/proc``."""
        try:
            file = _File(os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            return None
        fcntl.flock(file.fd, fcntl.LOCK_SH)
        other = SharedBytes(file, self.start, self.size)
        other._view = self.view
        return other

    def slice(self, start: int, size: int) -> SharedBytes:
        """``size`` bytes from ``start`` of these, without copying them."""
        assert 0 <= start <= start + size <= self.size
        return SharedBytes(self._file, self.start + start, size)

    def _mapped(self, access: int) -> memoryview:
        end = max(1, self.start + self.size)
        return memoryview(mmap.mmap(self.fd, end, access=access))[self.start : self.start + self.size]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SharedBytes) and self.view == other.view

    __hash__ = None  # type: ignore[assignment]


class MemoryPool:
    """Makes memory for other processes, and uses it again once all of them have dropped it.

    New memory costs a page fault for every 4 KiB, which takes five times as long as filling it. What is lent is locked
    (``flock``) through an open file of its own, which goes to the other process: the kernel ends the lock when that
    file is closed and unmapped everywhere, also by a crash. Without ``/proc``, all memory is new.
    """

    def __init__(self, most: int = MAX_KEPT) -> None:
        """``most``: bytes that are kept for later."""
        self._most = most
        self._kept: dict[int, SharedBytes] = {}
        """What was lent and is kept for later, by its file descriptor."""

    def lend(self, size: int) -> SharedBytes:
        """Returns memory of ``size`` bytes with any content. Raises ``OSError`` if there is no room for it."""
        for fd, memory in list(self._kept.items()):
            if memory.size != size and not _is_locked(fd):
                del self._kept[fd]
        free = (one for fd, one in self._kept.items() if one.size == size and not _is_locked(fd))
        memory = next(free, None) or SharedBytes.new(size)
        lent = memory.locked()
        if lent is None:
            return memory
        if memory.fd in self._kept or sum(one.size for one in self._kept.values()) + size <= self._most:
            self._kept[memory.fd] = memory
        return lent


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
