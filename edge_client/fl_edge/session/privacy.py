"""PURE: the noise that an edge adds for itself, and what it has spent. It is imported for ``--help``, too."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final, Literal, Self

from fl_shared.privacy.gaussian_mechanism import epsilon_of
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
        noise = f"a noise multiplier from {MIN_NOISE:g} to {MAX_NOISE:g}"
        expected = f"Z or Z,C, for example 1.1,1.0: {noise}, and a clip from 1e-6 to 1e6"
        found = cls(*_numbers(text, expected))
        if not MIN_NOISE <= found.noise <= MAX_NOISE or not 1e-6 <= found.clip <= 1e6:
            raise ValueError(f"{text!r}; expected {expected}")
        return found

    def __str__(self) -> str:
        """Returns what `parse` reads."""
        return f"{self.noise!r},{self.clip!r}"


@dataclass(frozen=True, slots=True)
class LocalNoise:
    """What ``--dp-local`` asks for: an update is no longer than ``clip``, and its noise is ``noise`` × ``clip``."""

    noise: float
    clip: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``Z,S``. Raises ``ValueError`` that says what was expected."""
        expected = "Z,S, for example 1,0.5: a noise multiplier from 0.001 to 1e6, and a clip from 1e-6 to 1e6"
        found = cls(*_numbers(text, expected, least=2))
        if not 0.001 <= found.noise <= 1e6 or not 1e-6 <= found.clip <= 1e6:
            raise ValueError(f"{text!r}; expected {expected}")
        return found

    def __str__(self) -> str:
        """Returns what `parse` reads."""
        return f"{self.noise!r},{self.clip!r}"


@dataclass(frozen=True, slots=True)
class Budget:
    """The most (``epsilon``, ``delta``) that an edge's updates may cost, over all runs."""

    epsilon: float
    delta: float = DELTA

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``E[,D]``. Raises ``ValueError`` that says what was expected."""
        expected = "E or E,D, for example 4,1e-5: ε above 0 and δ between 0 and 1"
        found = cls(*_numbers(text, expected))
        if not 0 < found.epsilon <= 1e3 or not 0 < found.delta < 1:
            raise ValueError(f"{text!r}; expected {expected}")
        return found

    def problem(self, epsilon: float, more: float) -> str | None:
        """Says that the budget is spent with ``epsilon`` if another update makes it ``more``; null if that fits."""
        if more <= self.epsilon:
            return None
        would = "" if math.isinf(more) else f"; another update would make it {more:.3g}"
        return f"its privacy budget is spent (ε {epsilon:.3g} of {self.epsilon:g}{would})"


@dataclass(frozen=True, slots=True)
class OwnPrivacy:
    """What an edge does for the privacy of its own data. ``tells``: whether it sends its ε.

    ``examples``: null without ``--dp-sgd``. ``local``: null without ``--dp-local``. ``least_noise``: the least noise
    multiplier of the edges of a masked round together; null without ``--require-noise``. ``budget``: null if there is
    none.
    """

    examples: ExampleNoise | None = None
    tells: bool = False
    local: LocalNoise | None = None
    least_noise: float | None = None
    budget: Budget | None = None

    @property
    def is_asked(self) -> bool:
        """Whether the edge counts what it sends, and says nothing of its data but in what it counts."""
        return self != NO_PRIVACY

    @property
    def option(self) -> str:
        """An option that asks for it."""
        given = {
            "--dp-sgd": self.examples, "--dp-local": self.local, "--require-noise": self.least_noise,
            "--privacy-budget": self.budget,
        }  # fmt: skip
        return next((name for name, value in given.items() if value is not None), "")

    def worker_options(self) -> list[str]:
        """Returns what tells it to a worker (`from_text`)."""
        return ["--privacy", json.dumps(asdict(self))] if self.is_asked else []

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Reads what `worker_options` has written."""
        given = json.loads(text)
        kinds = {"examples": ExampleNoise, "local": LocalNoise, "budget": Budget}
        nested = {name: kind(**given.pop(name)) for name, kind in kinds.items() if given[name] is not None}
        return cls(**{**given, **nested})

    @property
    def delta(self) -> float:
        """The δ of its ε."""
        return DELTA if self.budget is None else self.budget.delta

    @property
    def _edge_noise(self) -> float | None:
        """The noise multiplier that hides all that the edge sends; null if nothing must."""
        return max((one for one in (self.local and self.local.noise, self.least_noise) if one), default=None)

    @property
    def next_charges(self) -> tuple[Charge, ...]:
        """What its next update costs at least, in the unit ``edge``."""
        return () if self._edge_noise is None else (Charge("edge", self._edge_noise),)

    def covers(self, charges: tuple[Charge, ...]) -> bool:
        """Whether an update that has been charged so has the noise that is asked for now."""
        needed = (
            ("example", None if self.examples is None else self.examples.noise),
            ("edge", self._edge_noise),
        )
        return all(
            any(one.unit == unit and one.noise >= noise for one in charges)
            for unit, noise in needed
            if noise is not None
        )

    def epsilon(self, charges: tuple[Charge, ...]) -> float:
        """Returns the ε of all that the edge has sent, by the charges of the unit ``edge``."""
        return epsilon_of(mu_of(charges), self.delta)

    def problem_of(self, charged: tuple[Charge, ...], more: tuple[Charge, ...] | None = None) -> str | None:
        """Says that the budget is spent for an edge that was ``charged`` so; null if ``more`` fits.

        ``more``: what the next update costs; null: what it costs at least. The worker sees to single examples.
        """
        more = self.next_charges if more is None else more
        if self.budget is None or not any(one.unit == "edge" for one in more):
            return None
        return self.budget.problem(self.epsilon(charged), self.epsilon((*charged, *more)))


def mu_of(charges: tuple[Charge, ...]) -> float:
    """Returns the μ of Gaussian DP of the charges of the unit ``edge`` together (`gaussian_mechanism`)."""
    return math.sqrt(math.fsum(one.steps / one.noise**2 for one in charges if one.unit == "edge"))


def added(charged: tuple[Charge, ...], more: Iterable[Charge]) -> tuple[Charge, ...]:
    """Returns all charges together, one for those that differ in their steps only. Their order does not matter."""
    steps: dict[tuple[Unit, float, float], int] = {}
    for one in (*charged, *more):
        key = one.unit, one.noise, one.rate
        steps[key] = steps.get(key, 0) + one.steps
    return tuple(Charge(*key, number) for key, number in steps.items())


NO_PRIVACY: Final = OwnPrivacy()
"""The edge does what the aggregator says."""


def _numbers(text: str, expected: str, *, least: int = 1) -> list[float]:
    """Reads ``least`` numbers at least, two at most, with a comma between. Raises ``ValueError``."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not least <= len(found) <= 2:
        raise ValueError(f"{text!r}; expected {expected}")
    return found
