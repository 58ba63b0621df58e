"""The part of a task's model that stays on the edge (``--keep-local``).

Batch normalization as in FedBN (Li et al. 2021, arXiv:2102.07623), personal heads as in FedPer (Arivazhagan et al.
2019, arXiv:1912.00818). Imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Self

from fl_edge.errors import TaskOptionsError
from fl_shared.protocol.task_spec import KEEP_LOCAL, LOCAL_SEED, parse_task
from fl_shared.system.text import names_text

BATCHNORM: Final = "batchnorm"
"""Stands for all arrays of the model's layers of batch normalization."""
MAX_NAMED: Final = 50
"""Arrays that a mistake names."""
LOCAL: Final = "@local"
"""The vector of these arrays among those that an edge keeps. No section and no correction has this name."""
PERSONAL: Final = "@weights"
"""That of the shared arrays of a model of its own."""


@dataclass(frozen=True, slots=True)
class LocalPart:
    """Which arrays stay on the edge. Those of an edge that has none yet are first weights from ``seed``."""

    patterns: tuple[str, ...] = ()
    seed: int = 0

    @classmethod
    def of(cls, task: str) -> Self:
        """Returns what a run says of it in the name of its task."""
        given = parse_task(task)[1]
        patterns = given.get(KEEP_LOCAL)
        return cls() if patterns is None else cls(tuple(patterns.split(",")), int(given.get(LOCAL_SEED, "0")))

    def names(
        self, shared: Collection[str], batchnorm: Collection[str] = (), others: Iterable[str] = ()
    ) -> tuple[str, ...]:
        """Returns the names that stay, in ascending order: of the arrays ``shared``, and of ``others``.

        ``shared``: what the task shares. ``batchnorm``: the arrays of layers of batch normalization. ``others``: what
        belongs to a layer but has no floating-point values, such as the number of batches seen. Raises
        ``TaskOptionsError`` for a pattern that matches nothing of ``shared``, and for patterns that leave nothing.
        """
        if not self.patterns:
            return ()

        def matches(pattern: str, name: str) -> bool:
            return name in batchnorm if pattern == BATCHNORM else fnmatchcase(name, pattern)

        for pattern in self.patterns:
            if not any(matches(pattern, name) for name in shared):
                problem = (
                    "the model has no batch normalization"
                    if pattern == BATCHNORM
                    else "matches no array of the model"
                )
                raise _mistake(pattern, problem, shared)
        chosen = {name for name in (*shared, *others) if any(matches(one, name) for one in self.patterns)}
        if chosen >= set(shared):
            raise _mistake(
                ",".join(self.patterns), "matches all arrays of the model, so that nothing is shared", shared
            )
        return tuple(sorted(chosen))


ALL_SHARED: Final = LocalPart()
"""Nothing stays on the edge."""


def _mistake(pattern: str, problem: str, names: Collection[str]) -> TaskOptionsError:
    known = names_text(sorted(names), MAX_NAMED)
    return TaskOptionsError(
        f"--keep-local {pattern}: {problem}; expected {BATCHNORM}, or a glob of some of: {known}"
    )
