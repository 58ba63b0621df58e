"""Combines the updates of a round as its strategy says, one block of values after another.

A combination that is a sum is added on arrival. Any other reads the updates from the spool when the round closes. In
both cases, memory does not grow with the updates, but for the matrix of their inner products.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.aggregation import part_calls
from fl_aggregator.aggregation.exact_sum import ExactSum
from fl_aggregator.aggregation.regional_sum import RegionalSum
from fl_aggregator.aggregation.separate_updates import (
    Change,
    Combined,
    RebasedUpdate,
    SeparateUpdates,
    difference,
)
from fl_aggregator.aggregation.strategies.parts import (
    LAST_CHANGE,
    Block,
    ClosedRound,
    Contribution,
    Doubles,
    Strategy,
    WeightedSum,
)
from fl_aggregator.aggregation.validation import CheckedSection
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.configuration.staleness import parse_staleness
from fl_aggregator.round.events import Part, StrategyReport, UpdateMetadata
from fl_shared.privacy.clipping import clip_factor
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.section import Values
from fl_shared.tensors.fixed_point import scale_bits_of
from fl_shared.tensors.manifest import Manifest, Vector
from fl_shared.tensors.norms import norm
from fl_shared.tensors.spans import Span, blocks, spans

State = Mapping[str, Vector]
"""A strategy's vectors by name, each as long as the model. The places of buffers in them are not used."""
ReadUpdate = Callable[[str], Values]
"""Returns the values of a client's accepted update."""
Noise = Callable[[int, int], NDArray[np.int64]]
"""Returns the noise of so many values from an index on, in units of the fold."""
ReadVersion = Callable[[int], Vector]
"""Returns the weights of an earlier version."""


@dataclass(frozen=True, slots=True)
class _SpanSum:
    """The sum of consecutive values, all parameters or all buffers."""

    start: int
    stop: int
    buffers: bool
    sum: ExactSum


class Combiner:
    """Takes the updates of one round and makes the next weights of them.

    ``manifest``: of the model. ``slots``: the largest number of updates.
    """

    def __init__(self, strategy: Strategy, manifest: Manifest, settings: Settings) -> None:
        self._strategy = strategy
        self._parameters = spans(manifest, buffers=False)
        self._buffers = spans(manifest, buffers=True)
        self._values = manifest.values
        self._max_delta = settings.max_delta
        self._slots = settings.slots
        self._fold_width = settings.fold_width
        self.clip = math.inf if settings.privacy is None else settings.privacy.clip
        """The greatest L2 norm of an update, to which longer ones are shortened."""
        self.within_clip = 0
        """How many updates were not shortened."""
        self.report: StrategyReport | None = None
        """Of the newest model. ``clipped``: how many updates the transforms have made smaller. ``change_norm``: the L2
        norm of the combined change of the parameters; ``NAME_norm``: of a vector of the correction. The others are the
        optimizer's.
        """
        self._clipped = 0
        self._is_private = settings.privacy is not None
        self._expected = float(settings.per_round) if settings.has_secret_cohorts else None
        """The number of edges by which a sum of secret ones is divided."""
        self._private_scale_bits = settings.scale_bits
        self._staleness = parse_staleness(settings.staleness or "constant")
        self._factors: dict[str, float] = {}
        self._stale: dict[str, int] = {}
        """How old the base of an update is, by its edge, if it is not the newest version."""
        self._contributions: dict[tuple[str, str], Contribution] = {}
        """By the edge, and by who has sent its update: itself, or a regional aggregator."""
        self._sums: list[_SpanSum] = []
        correct = strategy.correct
        self._sections = {
            name: [self._span_sum(span, settings.max_examples, buffers=False) for span in self._parameters]
            for name in (() if correct is None else correct.sections)
        }
        combine = strategy.combine
        self._summed = combine if isinstance(combine, WeightedSum) else None
        """Found once: to ask whether an object has a protocol takes as long as thirty calls."""
        self._heaviest = math.inf if self._summed is None else self._summed.max_weight(settings.max_examples)
        self.integers: Int64s = np.empty(0 if self._summed is None else manifest.values, np.int64)
        """The memory of the sum of the deltas, if the combination is one: `count_sum` takes what is added to it."""
        if self._summed is not None:
            self._sums = [
                *(
                    self._span_sum(span, self._heaviest, buffers=False, memory=self.integers)
                    for span in self._parameters
                ),
                *(
                    self._span_sum(span, settings.max_examples, buffers=True, memory=self.integers)
                    for span in self._buffers
                ),
            ]

    def _span_sum(
        self, span: Span, max_weight: float, *, buffers: bool, memory: Int64s | None = None
    ) -> _SpanSum:
        bits = (
            scale_bits_of(max_weight, self._max_delta, self._slots, self._fold_width)
            if not self._is_private
            else self._private_scale_bits
        )
        cap = self._max_delta if buffers else math.inf  # that of parameters has been checked
        own = None if memory is None else memory[slice(*span)]
        return _SpanSum(*span, buffers, ExactSum(span[1] - span[0], bits, self._slots, cap, own))

    def clear(self) -> None:
        """Forgets all updates, for the next round; the memory of the sums is kept."""
        self._factors.clear()
        self._stale.clear()
        self._contributions.clear()
        self.within_clip = self._clipped = 0
        for some in itertools.chain(self._sums, *self._sections.values()):
            some.sum.clear()

    def add(
        self,
        update: UpdateMetadata,
        values: Values,
        largest: float,
        sections: Mapping[str, CheckedSection] | None = None,
    ) -> None:
        """Takes an accepted update. Its values, shape (manifest.values,), have magnitudes of at most ``largest``.

        ``sections``: all of them, of the same shape, if there is a correction. Raises ``RunFailed`` if a part breaks a
        rule, as `next_model` does.
        """
        strategy = self._strategy
        for name, sums in self._sections.items():
            assert sections is not None
            for some in sums:
                section = sections[name]
                some.sum.add(section.values, float(update.counted_examples), section.magnitude, some.start)
        length = norm(values, self._parameters) if strategy.wants_norms else None
        contribution = Contribution(
            update.client, update.examples, update.steps, update.before.get("loss"), length
        )
        factor, contribution = part_calls.transformed(strategy, contribution)
        self._clipped += factor < 1
        factor *= self._staleness(update.staleness)
        if update.staleness:
            self._stale[update.client] = update.staleness
        if self._is_private:
            length = norm(values, self._parameters)
            self.within_clip += length <= self.clip
            factor *= clip_factor(length, self._values, self.clip, self._private_scale_bits)
        self._factors[update.client] = factor
        self._contributions[update.client, update.client] = contribution
        if self._summed is not None:
            weight = factor * part_calls.weight_of(self._summed, contribution, self._heaviest)
            for some in self._sums:
                by = float(update.examples) if some.buffers else weight
                some.sum.add(values, by, largest, some.start)

    def add_sum(self, update: UpdateMetadata, total: RegionalSum) -> None:
        """Takes the sum of a regional aggregator, which has combined the updates of its edges as `summed` says it."""
        for some in self._sums:
            multiples = {
                index - some.start: multiple
                for index, multiple in total.multiples.items()
                if some.start <= index < some.stop
            }
            some.sum.merge(total.integers[some.start : some.stop], multiples, update.edges)
        self._keep_parts(update)

    def count_sum(self, update: UpdateMetadata) -> None:
        """Takes the sum of such an update, whose integers have been added to `integers` already."""
        for some in self._sums:
            some.sum.count(update.edges)
        self._keep_parts(update)

    def _keep_parts(self, update: UpdateMetadata) -> None:
        for part in update.parts:
            contribution = Contribution(part.client, part.examples, part.steps, part.loss, part.norm)
            self._contributions[part.client, update.client] = contribution

    def add_noise(self, noise: Noise) -> None:
        """Adds the noise of a private run to the sum of the parameters; it has no buffers."""
        for some in self._sums:

            def of_span(start: int, stop: int, first: int = some.start) -> NDArray[np.int64]:
                return noise(first + start, stop - start)

            some.sum.add_noise(of_span)

    def summed(self) -> tuple[RegionalSum, tuple[Part, ...]]:
        """Returns the sum of the updates, and what they are, in ascending order of their edges.

        The combination must be a sum, without a correction that adds sections.
        """
        integers = np.zeros(self._values, np.int64)
        multiples: dict[int, int] = {}
        for some in self._sums:
            integers[some.start : some.stop] = some.sum.integers()
            multiples |= {some.start + index: one for index, one in some.sum.multiples().items()}
        found = [self._contributions[key] for key in sorted(self._contributions)]
        parts = tuple([Part(one.client, one.examples, one.steps, one.loss, one.norm) for one in found])
        return RegionalSum(integers, multiples), parts

    def next_model(
        self,
        version: int,
        base: Vector,
        state: State,
        read: ReadUpdate,
        heard: tuple[int, int] = (0, 0),
        older: ReadVersion | None = None,
    ) -> tuple[Vector, dict[str, Vector]]:
        """Returns the weights of ``version`` and the strategy's state then; ``base`` and ``state`` stay as they are.

        ``heard``: see `ClosedRound`. ``older``: for stale updates of a model with buffers.
        """
        contributions = tuple(self._contributions[name] for name in sorted(self._contributions))
        closed = ClosedRound(version, contributions, heard=heard)
        own: dict[str, Vector] = {}
        if self._buffers and self._stale:
            assert older is not None
            bases = {stale: older(version - 1 - stale) for stale in set(self._stale.values())}
            own = {client: bases[stale] for client, stale in self._stale.items()}
        changes = self._changes(closed, state, read, base, own)
        if self._strategy.optimize.wants_norms:
            closed = replace(closed, mean_norm=self._norm_of(changes.parameters))
        weights, lengths = base.copy(), list[float]()
        next_state = {name: vector.copy() for name, vector in state.items()}
        for start, stop in blocks(self._parameters):
            vectors = {name: vector[start:stop].astype(np.float64) for name, vector in next_state.items()}
            change = changes.parameters(start, stop)
            if self._strategy.remembers:
                change += changes.last * vectors[LAST_CHANGE]
                vectors[LAST_CHANGE] = change.copy()
            lengths.append(_norm(change))
            sections = {
                name: _over(sums, float(closed.examples), start, stop)
                for name, sums in self._sections.items()
            }
            block = Block(base[start:stop].astype(np.float64), change, vectors, sections)
            weights[start:stop] = part_calls.stepped(self._strategy, block, closed)
            for name, vector in vectors.items():
                next_state[name][start:stop] = vector
        for start, stop in blocks(self._buffers):
            weights[start:stop] = base[start:stop] + changes.buffers(start, stop)
        chosen = tuple([contributions[index].client for index in changes.chosen or ()])
        self.report = StrategyReport(self._numbers(closed, _length(lengths), next_state), chosen)
        return weights, next_state

    def _norm_of(self, change: Change) -> float:
        return _length([_norm(change(start, stop)) for start, stop in blocks(self._parameters)])

    def _numbers(self, closed: ClosedRound, change_norm: float, state: State) -> dict[str, float]:
        """Returns the numbers of the report; those of somebody's optimizer that are not finite are left out."""
        strategy = self._strategy
        numbers = {"change_norm": change_norm}
        if strategy.transforms and len(self._factors) == len(closed.contributions):  # and none by a region
            numbers["clipped"] = float(self._clipped)
        if strategy.correct is not None:
            numbers |= {
                f"{name}_norm": norm(state[name], self._parameters) for name in strategy.correct.state()
            }
        numbers |= part_calls.report_of(strategy, closed)
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    def _changes(
        self, closed: ClosedRound, state: State, read: ReadUpdate, base: Vector, own: Mapping[str, Vector]
    ) -> Combined:
        """Combines the updates.

        ``own``: by edge, the version that a stale update began from. The buffers of the next version are means of
        those that edges have ended with. Their changes of different versions, added to ``base``, would be no such
        mean, and a variance could be below 0.
        """
        if self._summed is not None:
            divisor = (
                part_calls.divisor_of(self._summed, closed) if self._expected is None else self._expected
            )
            added = self._over(float(closed.examples), buffers=True)

            def of_buffers(start: int, stop: int) -> Doubles:
                change = added(start, stop)
                for update in closed.contributions:
                    if update.client in own:
                        moved = difference(own[update.client], base, slice(start, stop))
                        change += update.examples / closed.examples * moved
                return change

            return Combined(self._over(divisor, buffers=False), of_buffers)
        combine = self._strategy.combine
        assert not isinstance(combine, WeightedSum)  # `_summed` says so
        rows = [read(update.client) for update in closed.contributions]
        rebased = [
            RebasedUpdate(row, own[update.client], base) if update.client in own else row
            for update, row in zip(closed.contributions, rows, strict=True)
        ]
        factors = np.array([self._factors[update.client] for update in closed.contributions])
        last = state[LAST_CHANGE] if self._strategy.remembers else None
        return SeparateUpdates(rows, rebased, factors, self._parameters, last).combined(combine, closed)

    def _over(self, divisor: float, *, buffers: bool) -> Change:
        sums = [some for some in self._sums if some.buffers == buffers]
        return lambda start, stop: _over(sums, divisor, start, stop)


def _norm(block: Doubles) -> float:
    return norm(block, [(0, len(block))])


def _length(norms: Sequence[float]) -> float:
    return math.sqrt(math.fsum(part**2 for part in norms))


def _over(sums: Sequence[_SpanSum], divisor: float, start: int, stop: int) -> Doubles:
    some = next(one for one in sums if one.start <= start < one.stop)
    return some.sum.over(divisor, start - some.start, stop - some.start)


def first_state(strategy: Strategy, values: int) -> dict[str, Vector]:
    """Returns the strategy's vectors before its first version, each of ``values`` values."""
    return {name: np.full(values, value, np.float32) for name, value in strategy.state.items()}
