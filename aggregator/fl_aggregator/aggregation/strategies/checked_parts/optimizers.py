"""Server optimizers and corrections with checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from numbers import Real

import numpy as np

from fl_aggregator.aggregation.strategies.checked_parts.part import (
    LARGEST,
    CheckedPart,
    bits_of,
    brief,
    key_of,
    piece_of,
    vectors_of,
)
from fl_aggregator.aggregation.strategies.parts import LAST_CHANGE, Block, ClosedRound, Doubles


class _CheckedState(CheckedPart):
    """A part with a state."""

    def state(self) -> dict[str, float]:
        """Returns the names of its vectors, with the value they begin with."""
        expected = "numbers by name, finite in float32"
        found = self.run("state", expected)
        self.check(isinstance(found, Mapping), f"state() is {brief(found)}", expected)
        for name, value in found.items():
            named = isinstance(name, str) and name and name != "__metadata__"  # which safetensors reserves
            self.check(named, f"state() has the name {name!r}", expected)
            begins = isinstance(value, Real) and abs(float(value)) <= LARGEST
            self.check(begins, f"state() begins {name!r} with {value!r}", expected)
        return {name: float(value) for name, value in found.items()}

    def _changed(self, method: str, block: Block, closed: ClosedRound, *, weights: bool) -> None:
        """Changes ``block`` as the method does it. ``weights``: whether it may change those of the model."""
        own = self.state()
        expected = f"that it changes {'block.weights and ' if weights else ''}its vectors in place"

        def run(where: slice) -> dict[str, Doubles]:
            given = piece_of(block, where)
            # Another part may keep a vector, too.
            given = replace(given, state={LAST_CHANGE: np.full(len(given.weights), 0.5), **given.state})
            after = self.call(method, expected, given, closed)
            self._check_block(method, given, after, weights=weights)
            return {key: vector for key, vector in vectors_of(after).items() if key in changes}

        changes = {"block.weights", *(key_of(name) for name in own)}
        before = vectors_of(block)
        whole = run(slice(0, len(block.weights)))
        floor = 1e-12 * max(float(np.abs(vector).max(initial=0)) for vector in before.values())
        slack = {key: 1e-5 * np.abs(vector - before[key]) + floor for key, vector in whole.items()}
        self.check_by_coordinate(method, whole, slack, run)
        block.weights[:] = whole["block.weights"]
        for name in own:
            block.state[name][:] = whole[key_of(name)]

    def _check_block(self, method: str, before: Block, after: Block, *, weights: bool) -> None:
        names = list(before.state)
        self.check(
            set(after.state) == set(names),
            f"{method}() leaves {list(after.state)} in block.state",
            f"{names}",
        )
        given, left = vectors_of(before), vectors_of(after)
        kept = [
            "block.change",
            key_of(LAST_CHANGE),
            *(key for key in given if key.startswith("block.sections")),
        ]
        for key in kept if weights else ["block.weights", *kept]:
            self.check(
                bits_of(given[key]) == bits_of(left[key]), f"{method}() changes {key}", "that it stays"
            )
        for key, vector in left.items():
            self.check_vector(f"after {method}(), {key}", vector, len(before.weights))


class CheckedOptimizer(_CheckedState):
    """A server optimizer."""

    members = ("wants_norms", "state", "step")

    def step(self, block: Block, closed: ClosedRound) -> None:
        """Changes the weights and its vectors."""
        self._changed("step", block, closed, weights=True)


class CheckedReporter(CheckedOptimizer):
    """A server optimizer that says something of a step."""

    def report(self, closed: ClosedRound) -> dict[str, float]:
        """Returns numbers by name."""
        expected = "numbers by name"
        found = self.call("report", expected, closed)
        self.check(isinstance(found, Mapping), f"report() is {brief(found)}", expected)
        for name, value in found.items():
            good = isinstance(name, str) and isinstance(value, Real)
            self.check(good, f"report() has {name!r}: {value!r}", expected)
        return {name: float(value) for name, value in found.items()}


class CheckedCorrection(_CheckedState):
    """A correction."""

    members = ("name", "sections", "state", "absorb")
    norms_remedy = "that it does without: no correction can want norms"

    @cached_property
    def wants_norms(self) -> bool:
        """Whether it wants norms."""
        return False

    @property
    def sections(self) -> tuple[str, ...]:
        """What each update contains besides the change."""
        found: tuple[str, ...] = self.part.sections
        return found

    def absorb(self, block: Block, closed: ClosedRound) -> None:
        """Changes its vectors."""
        self._changed("absorb", block, closed, weights=False)
