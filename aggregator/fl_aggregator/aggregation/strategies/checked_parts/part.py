"""What all of them check: that a method returns, what it returns, and that norms are wanted if they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from numbers import Real
from typing import Any, Final

import numpy as np

from fl_aggregator.aggregation.strategies.parts import Block, ClosedRound, Contribution, Doubles

LARGEST: Final = float(np.finfo(np.float32).max)


class CheckedPart:
    """A part of somebody, ``part``. ``max_examples``: of an update, in a run."""

    members: tuple[str, ...]
    """What it must have."""
    norms_remedy = "wants_norms: ClassVar[bool] = True"

    def __init__(self, part: Any, max_examples: int) -> None:
        self.part = part
        self._name = type(part).__name__
        self.max_examples = max_examples

    @cached_property
    def wants_norms(self) -> bool:
        """Whether the part wants norms."""
        return self.flag("wants_norms")

    def flag(self, name: str) -> bool:
        value = getattr(self.part, name, False)
        self.check(isinstance(value, bool), f"{name} is {value!r}", "True or False")
        return bool(value)

    def check(self, kept: Any, found: str, expected: str) -> None:
        if not kept:
            raise AssertionError(f"{self._name}: {found}, expected {expected}")

    def run(self, method: str, expected: str, *given: Any) -> Any:
        """Returns what the method returns; of a block, the block as the method has changed it."""
        try:
            returned = getattr(self.part, method)(*given)
        except Exception as error:  # its code is somebody's, and may raise anything
            said = said_by(error)
            raise AssertionError(f"{self._name}: {method}() raises {said}, expected {expected}") from error
        return given[0] if given and isinstance(given[0], Block) else returned

    def call(self, method: str, expected: str, *given: Any) -> Any:
        """As `run`, of copies. Norms, which another part may want, must not matter unless this one wants them."""

        def result_of(*, norms: bool) -> Any:
            return self.run(method, expected, *(_copied(one, norms=norms) for one in given))

        if self.wants_norms:
            return result_of(norms=False)
        with_norms = result_of(norms=True)
        found = f"{method}() uses norms, which are null unless a part wants them"
        try:
            result = result_of(norms=False)
        except AssertionError as error:
            raise AssertionError(f"{self._name}: {found}, expected {self.norms_remedy}") from error
        if bits_of(result) != bits_of(with_norms):
            self._check_same(method, result, result_of(norms=False))
            self.check(False, found, self.norms_remedy)
        return result

    def _check_same(self, method: str, result: Any, again: Any) -> None:
        self.check(
            bits_of(result) == bits_of(again), f"{method}(): another call gives other bits", "the same"
        )

    def check_number(self, method: str, value: Any, expected: str, of: object = None) -> float:
        """Returns ``value``, a number."""
        what = "" if of is None else f" for {of}"
        self.check(isinstance(value, Real), f"{method}() is {value!r}{what}", expected)
        return float(value)

    def check_vector(self, what: str, vector: Any, size: int) -> None:
        """Checks that it is a float64 array of shape (size,), whose values are finite, in float32 too."""
        expected = f"an array of float64, shape ({size},)"
        self.check(isinstance(vector, np.ndarray), f"{what} is {brief(vector)}", expected)
        self.check(vector.shape == (size,), f"{what} has the shape {vector.shape}", expected)
        self.check(vector.dtype == np.float64, f"{what} is of {vector.dtype}", expected)
        bad = np.flatnonzero(~(np.abs(vector) <= LARGEST))
        if len(bad):
            found = f"{what} is not finite: {vector[bad[0]]} at index {bad[0]}"
            self.check(False, found, "values that float32 can hold")

    def check_by_coordinate(
        self,
        method: str,
        whole: Mapping[str, Doubles],
        slack: Mapping[str, Doubles],
        run: Callable[[slice], Mapping[str, Doubles]],
    ) -> None:
        """Checks that some vectors of a ``whole`` block are those of blocks of one coordinate each, within ``slack``.

        ``run``: makes the vectors of some coordinates, as if they were a block.
        """
        size = len(next(iter(whole.values())))
        for index in sorted({*range(0, size, max(1, size // 3)), size - 1}):
            for key, (alone,) in run(slice(index, index + 1)).items():
                together = whole[key][index]
                if abs(alone - together) <= slack[key][index]:
                    continue
                self._check_same(method, dict(whole), dict(run(slice(0, size))))
                found = (
                    f"{method}() makes {together:.6g} of coordinate {index} in a block of {size}, "
                    f"and {alone:.6g} in a block of 1{key and f' ({key})'}"
                )
                self.check(False, found, "the same: each coordinate by itself")


def _copied(given: Any, *, norms: bool) -> Any:
    """Returns a copy that a part may change. ``norms``: as it is if another part wants norms."""
    if isinstance(given, Block):
        return piece_of(given, slice(None))
    if isinstance(given, np.ndarray):
        return given.copy()
    if norms and isinstance(given, Contribution):
        return given if given.norm is not None else replace(given, norm=1.5)
    if norms and isinstance(given, ClosedRound):
        contributions = tuple([_copied(one, norms=True) for one in given.contributions])
        mean_norm = 1.5 if given.mean_norm is None else given.mean_norm
        return replace(given, contributions=contributions, mean_norm=mean_norm)
    return given


def piece_of(block: Block, where: slice) -> Block:
    """Returns a copy of some coordinates of a block."""
    return Block(
        block.weights[where].copy(),
        block.change[where].copy(),
        {name: vector[where].copy() for name, vector in block.state.items()},
        {name: vector[where].copy() for name, vector in block.sections.items()},
    )


def key_of(name: str) -> str:
    """Returns what a vector of the state is called in a message."""
    return f"block.state[{name!r}]"


def vectors_of(block: Block) -> dict[str, Doubles]:
    """Returns all vectors of a block, each by what it is called in a message."""
    return {
        "block.weights": block.weights,
        "block.change": block.change,
        **{key_of(name): vector for name, vector in block.state.items()},
        **{f"block.sections[{name!r}]": vector for name, vector in block.sections.items()},
    }


def bits_of(result: Any) -> Any:
    """Returns something that is equal for results with equal bits."""
    if isinstance(result, Block):
        result = vectors_of(result)
    if isinstance(result, dict):
        return {key: bits_of(value) for key, value in result.items()}
    if isinstance(result, np.ndarray):
        return result.shape, result.dtype.str, result.tobytes()
    return repr(result)


def said_by(error: Exception) -> str:
    """Returns the name of an error, and what it says, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def brief(value: Any) -> str:
    """Returns the type and the start of a value on one line."""
    text = " ".join(f"{type(value).__name__} {value!r}".split())
    return text if len(text) <= 100 else f"{text[:99]}…"
