"""torch's global generator, which all threads of a process share: one thread at a time draws from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch


class SharedGenerator:
    """Seeds torch's global generator for one thread at a time, and restores it afterwards."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self._waiting = 0

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Lets the calling thread alone draw from the generator, seeded with ``seed``. Not for nested use."""
        self._take()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                yield
        finally:
            self._release()

    def give_way(self) -> None:
        """Lets other threads go first that wait for the generator; called within `seeded`, between two draws.

        They leave it as it was. A prediction must not wait until a training ends.
        """
        if self._waiting:
            self._release()
            self._take(after_others=True)

    def _take(self, *, after_others: bool = False) -> None:
        with self._changed:
            self._waiting += not after_others
            self._changed.wait_for(lambda: not self._taken and not (after_others and self._waiting))
            self._waiting -= not after_others
            self._taken = True

    def _release(self) -> None:
        with self._changed:
            self._taken = False
            self._changed.notify_all()


GENERATOR: Final = SharedGenerator()
"""The generator of this process."""
