"""The seeded permutation of a round: its first ranks are the cohort, the next are the substitutes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def permutation(clients: Iterable[str], seed: int, round_number: int) -> tuple[str, ...]:
    """All ``clients`` in this round's order: ascending by SHA-256 of ``seed NUL round NUL client``.

    A hash instead of a random generator, because its order is the same with every version of every library,
    and because a client that comes or goes leaves the order of the others as it was.
    """

    def rank(client: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{round_number}\0{client}".encode()).digest()

    return tuple(sorted(clients, key=rank))
