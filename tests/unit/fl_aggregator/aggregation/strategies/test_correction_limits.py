"""A correction whose name, fields or sections cannot travel is refused, and `check` says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from fl_aggregator.aggregation.strategies.correction_limits import MAX_SECTIONS, refusal_of
from fl_aggregator.aggregation.strategies.corrections import Prox, Scaffold
from fl_aggregator.aggregation.strategies.parts import Block, ClosedRound, Correction
from fl_aggregator.aggregation.strategies.testing import check
from fl_shared.protocol import messages as m


@dataclass(frozen=True)
class Drift:
    """A good correction, which others spoil."""

    name: ClassVar[str] = "drift"
    sections: ClassVar[tuple[str, ...]] = ("drift",)
    mu: Annotated[float, Field(gt=0, le=1)] = 0.5

    def state(self) -> Mapping[str, float]:
        return dict.fromkeys(self.sections, 0.0)

    def absorb(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        for name in self.sections:
            block.state[name][:] += self.mu * block.sections[name]


@dataclass(frozen=True)
class OfFour(Drift):
    sections: ClassVar[tuple[str, ...]] = ("a", "b", "c", "d")


@dataclass(frozen=True)
class OfFive(Drift):
    sections: ClassVar[tuple[str, ...]] = ("a", "b", "c", "d", "e")


@dataclass(frozen=True)
class Textual(Drift):
    form: Literal["soft", "hard"] = "soft"


@dataclass(frozen=True)
class Switch(Drift):
    hard: bool = False


@dataclass(frozen=True)
class Capital(Drift):
    Mu: Annotated[float, Field(gt=0, le=1)] = 0.5


@dataclass(frozen=True)
class Unnamed(Drift):
    name: ClassVar[str] = "My Drift"


@dataclass(frozen=True)
class Delta(Drift):
    sections: ClassVar[tuple[str, ...]] = ("delta",)


@dataclass(frozen=True)
class Weights(Drift):
    sections: ClassVar[tuple[str, ...]] = ("weights",)


@dataclass(frozen=True)
class Tallies(Drift):
    sections: ClassVar[tuple[str, ...]] = ("tallies",)


@dataclass(frozen=True)
class Spaced(Drift):
    sections: ClassVar[tuple[str, ...]] = ("my drift",)


@dataclass(frozen=True)
class Twice(Drift):
    sections: ClassVar[tuple[str, ...]] = ("drift", "drift")


@dataclass(frozen=True)
class Letters(Drift):
    sections: ClassVar[tuple[str, ...]] = "drift"  # type: ignore[assignment]


@dataclass(frozen=True)
class Stateless(Drift):
    def state(self) -> Mapping[str, float]:
        return {}


@dataclass(frozen=True)
class Optional(Drift):
    nu: Annotated[float, Field(gt=0, le=1)] | None = 0.5


@dataclass(frozen=True)
class Momentum(Drift):
    sections: ClassVar[tuple[str, ...]] = ("momentum",)


@dataclass(frozen=True)
class Change(Drift):
    sections: ClassVar[tuple[str, ...]] = ("change",)


REFUSED: list[tuple[Correction, str]] = [
    (OfFive(), "sections has 5 names, expected at most 4"),
    (Textual(), "field form is 'soft', which edges cannot be told: input should be a valid number"),
    (Switch(), "field hard is False, which edges cannot be told: input should be a valid number"),
    (Capital(), "field Mu is 'Mu', which edges cannot be told: string should match pattern"),
    (Unnamed(), "name is 'My Drift', which edges cannot be told: string should match pattern"),
    (Delta(), "sections has 'delta', which is reserved, expected a name of its own"),
    (Weights(), "sections has 'weights', which is reserved"),
    (Tallies(), "sections has 'tallies', which is reserved"),
    (Spaced(), "sections has 'my drift': string should match pattern"),
    (Twice(), "sections is ('drift', 'drift'), expected each name once"),
    (Letters(), "sections is 'drift', expected a tuple of names"),
    (Stateless(), "state() has no 'drift', expected a vector for each of its sections"),
]


@pytest.mark.parametrize(
    "correct", [Drift(), OfFour(), Prox(), Scaffold()], ids=lambda one: type(one).__name__
)
def test_a_correction_that_edges_can_be_told_is_not_refused(correct: Correction) -> None:
    assert refusal_of(correct) is None
    check(correct)


@pytest.mark.parametrize(("correct", "said"), REFUSED, ids=[type(correct).__name__ for correct, _ in REFUSED])
def test_one_that_they_cannot_be_told_is_refused(correct: Correction, said: str) -> None:
    refusal = refusal_of(correct)
    assert refusal is not None
    assert refusal.startswith(said)
    with pytest.raises(AssertionError) as raised:
        check(correct)
    assert str(raised.value) == f"{type(correct).__name__}: {refusal}"


@pytest.mark.parametrize(
    ("correct", "said"),
    [
        (Optional(), "Optional: nu may be None, expected a number: edges are told the fields"),
        (
            Momentum(),
            "Momentum: state() names 'momentum', which is a vector of another part, expected another name",
        ),
        (
            Change(),
            "Change: state() names 'change', which is a vector of another part, expected another name",
        ),
    ],
    ids=lambda one: type(one).__name__,
)
def test_and_one_that_another_run_could_not_have(correct: Correction, said: str) -> None:
    with pytest.raises(AssertionError) as raised:
        check(correct)
    assert str(raised.value) == said


def test_the_opening_of_a_round_names_as_many_companions_as_a_correction_may_have_sections() -> None:
    assert MAX_SECTIONS == 4
    companion = m.Companion(section="a", digest="0" * 64)
    opening: Any = m.Selected
    change = opening.__pydantic_validator__.validate_assignment
    change(opening.model_construct(), "companions", (companion,) * MAX_SECTIONS)
    with pytest.raises(ValueError, match="at most 4"):
        change(opening.model_construct(), "companions", (companion,) * (MAX_SECTIONS + 1))
