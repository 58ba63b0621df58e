"""Memory of results is used again, but only once nobody has it any more."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fl_shared.system.shared_memory import MemoryPool, SharedBytes

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="memory is kept only with /proc")


def sent(memory: SharedBytes) -> SharedBytes:
    """What another process receives when ``memory`` is sent to it."""
    here, there = socket.socketpair()
    with here, there:
        socket.send_fds(here, [b"x"], [memory.fd])
        _, fds, _, _ = socket.recv_fds(there, 1, 1)
    return SharedBytes.from_fd(fds[0], memory.start, memory.size)


def inode(memory: SharedBytes) -> int:
    return os.fstat(memory.fd).st_ino


@pytest.mark.parametrize("still_has", ["file", "view", "message"])
def test_memory_is_used_again_only_when_it_is_closed_and_unmapped(still_has: str) -> None:
    pool = MemoryPool()
    lent = pool.lend(10)
    lent.view[:] = b"0123456789"
    first = inode(lent)
    received = sent(lent)
    del lent
    kept: object = {"file": received, "view": received.view[2:3], "message": sent(received)}[still_has]
    del received
    other = pool.lend(10)
    assert inode(other) != first
    if isinstance(kept, memoryview):
        assert bytes(kept) == b"2"
    del kept
    again = pool.lend(10)
    assert inode(again) == first


def test_what_was_not_sent_yet_is_not_used_again() -> None:
    pool = MemoryPool()
    one, two = pool.lend(5), pool.lend(5)
    assert inode(one) != inode(two)


def test_a_pool_keeps_no_more_than_it_may_and_nothing_of_another_size() -> None:
    pool = MemoryPool(most=10)
    small, large = pool.lend(4), pool.lend(7)
    first, second = inode(small), inode(large)
    del small, large
    assert inode(pool.lend(7)) != second
    assert inode(pool.lend(4)) != first
