"""What `keep_freed_memory` changes, counted in page faults of a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from fl_shared.system.malloc import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
def fill(size):
    bytearray(size)[:] = b"x" * size
fill(24_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in (20_000_000, 24_000_000) * 5:
    fill(size)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(argument: str, **environment: str) -> tuple[bool, int]:
    clean = {
        name: value for name, value in os.environ.items() if "MALLOC" not in name and "GLIBC" not in name
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, argument],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    kept, count = done.stdout.split()
    return kept == "True", int(count)


GLIBC = platform.libc_ver()[0] == "glibc"


@pytest.mark.skipif(not GLIBC, reason="the allocator of glibc is what it sets")
def test_freed_memory_is_used_again() -> None:
    _, without = faults("leave")
    kept, count = faults("keep")
    assert kept
    assert count < 100
    assert without > 10_000, "nothing to gain"


@pytest.mark.skipif(GLIBC, reason="glibc has an allocator that it sets")
def test_another_allocator_is_left_alone() -> None:
    assert faults("keep")[0] is False


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"])
def test_who_tuned_it_is_left_alone(name: str) -> None:
    value = "glibc.malloc.mmap_threshold=131072" if name == "GLIBC_TUNABLES" else "131072"
    assert faults("keep", **{name: value})[0] is False
