"""PURE: the noise that an edge adds for itself, and what it has spent. It is imported for ``--help``, too."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final, Literal, Self

from fl_shared.protocol.abilities import BF16, LOGIT_ADJUSTMENT

DELTA: Final = 1e-5
"""The δ of an edge's ε, unless its budget names another."""
NOT_WITH_DP_SGD: Final = (LOGIT_ADJUSTMENT, BF16)
"""Abilities that an edge with ``--dp-sgd`` lacks: frequencies of classes mix examples, and sums need float32."""
MIN_NOISE: Final = 0.1
"""The least noise multiplier of ``--dp-sgd``: with less, ε is in the hundreds after some steps."""
MAX_NOISE: Final = 50.0
Unit = Literal["edge", "example"]
"""What the noise hides: all that the edge sends, or each single example of its data."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What an update costs: ``steps`` times Gaussian noise of ``noise`` times the length of what it hides.

    Each step sees an example with the probability ``rate`` (1 in the unit ``edge``).
    """

    unit: Unit
    noise: float
    rate: float = 1.0
    steps: int = 1


@dataclass(frozen=True, slots=True)
class ExampleNoise:
    """What ``--dp-sgd`` asks for: gradients of examples are no longer than ``clip``, noise is ``noise`` × ``clip``."""

    noise: float
    clip: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``Z[,C]``. Raises ``ValueError`` that says what was expected."""
        expected = f"Z or Z,C, for example 1.1,1.0: a noise multiplier from {MIN_NOISE:g} to {MAX_NOISE:g}, and a clip"
        found = cls(*_numbers(text, expected))
        if not MIN_NOISE <= found.noise <= MAX_NOISE or not 0 < found.clip <= 1e6:
            raise ValueError(f"{text!r}; expected {expected}")
        return found

    def __str__(self) -> str:
        """Returns what `parse` reads."""
        return f"{self.noise!r},{self.clip!r}"


@dataclass(frozen=True, slots=True)
class OwnPrivacy:
    """What an edge does for the privacy of its own data. ``tells``: whether it sends its ε.

    ``examples``: null without ``--dp-sgd``.
    """

    examples: ExampleNoise | None = None
    tells: bool = False

    @property
    def is_asked(self) -> bool:
        """Whether the edge counts what it sends, and says nothing of its data but in what it counts."""
        return self.examples is not None

    @property
    def option(self) -> str:
        """The option that asks for it."""
        return "--dp-sgd"

    def worker_options(self) -> list[str]:
        """Returns what tells it to a worker (`from_text`)."""
        return ["--privacy", json.dumps(asdict(self))] if self.is_asked else []

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Reads what `worker_options` has written."""
        given = json.loads(text)
        examples = given.pop("examples")
        return cls(None if examples is None else ExampleNoise(**examples), **given)

    @property
    def delta(self) -> float:
        """The δ of its ε."""
        return DELTA

    def covers(self, charges: tuple[Charge, ...]) -> bool:
        """Whether an update that has been charged so has the noise that is asked for now."""
        needed = () if self.examples is None else (("example", self.examples.noise),)
        return all(any(one.unit == unit and one.noise >= noise for one in charges) for unit, noise in needed)


def added(charged: tuple[Charge, ...], more: Iterable[Charge]) -> tuple[Charge, ...]:
    """Returns all charges together, one for those that differ in their steps only. Their order does not matter."""
    steps: dict[tuple[Unit, float, float], int] = {}
    for one in (*charged, *more):
        key = one.unit, one.noise, one.rate
        steps[key] = steps.get(key, 0) + one.steps
    return tuple(Charge(*key, number) for key, number in steps.items())


NO_PRIVACY: Final = OwnPrivacy()
"""The edge does what the aggregator says."""


def _numbers(text: str, expected: str) -> list[float]:
    """Reads one number, or two with a comma between. Raises ``ValueError``."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not 1 <= len(found) <= 2:
        raise ValueError(f"{text!r}; expected {expected}")
    return found
