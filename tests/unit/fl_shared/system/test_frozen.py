"""A copy of a frozen dataclass with other values, whether it has slots or not."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any

import pytest

from fl_shared.system.frozen import replace


@dataclass(frozen=True, kw_only=True)
class WithDictionary:
    a: int
    b: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithSlots:
    a: int
    b: list[int] = field(default_factory=list)


@pytest.mark.parametrize("kind", [WithDictionary, WithSlots])
def test_a_copy_has_the_other_values_and_shares_the_rest(kind: Any) -> None:
    first = kind(a=1, b=[2])
    second = replace(first, a=3)
    assert (first, second) == (kind(a=1, b=[2]), kind(a=3, b=[2]))
    assert second.b is first.b
    assert type(second) is kind
    with pytest.raises(FrozenInstanceError):
        second.a = 4


@pytest.mark.parametrize("kind", [WithDictionary, WithSlots])
def test_an_unknown_field_is_an_error(kind: Any) -> None:
    with pytest.raises(TypeError, match="c"):
        replace(kind(a=1), c=2)
