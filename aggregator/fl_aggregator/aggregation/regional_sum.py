"""The sum of a regional aggregator: exact integers, so that a tree of aggregators makes the bits of a flat run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

import numpy as np

from fl_aggregator.aggregation.strategies.parts import Block, ClosedRound, Strategy, WeightedSum
from fl_aggregator.aggregation.strategies.registry import named_part
from fl_aggregator.configuration.settings import Settings
from fl_shared.masking.plan import Plan
from fl_shared.privacy.clipping import FARTHEST
from fl_shared.privacy.distributed_noise import noise_of_edge
from fl_shared.tensors.encodings.integers import SUM, Int64s
from fl_shared.tensors.fixed_point import scale_bits_of
from fl_shared.tensors.manifest import Manifest
from fl_shared.tensors.sections import DELTA, LARGE, ModelSection

MAX_INT64: Final = 2**63 - 1


class SumTooLarge(Exception):
    """A sum has a value that its updates cannot have made, or that does not fit into 64 bits."""


@dataclass(frozen=True, slots=True)
class OptimizerAbove:
    """The server optimizer of the run above, which makes the next model there."""

    wants_norms: ClassVar[bool] = False

    def state(self) -> Mapping[str, float]:
        """Nothing is kept here."""
        return {}

    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        """No model is made here."""
        raise AssertionError("a regional aggregator makes no model")


@dataclass(frozen=True, slots=True)
class OptimizerWithNorms(OptimizerAbove):
    """The same of a run that must know how long each update is."""

    wants_norms: ClassVar[bool] = True


def strategy_of(settings: Settings) -> Strategy:
    """Returns how a regional aggregator adds up for the run above, as its ``sums`` say.

    Raises ``UserError`` for a part that is not installed here.
    """
    sums = settings.sums
    return Strategy(
        named_part("combine", sums.combine),
        OptimizerWithNorms() if sums.norms else OptimizerAbove(),
        tuple([named_part("transform", text) for text in sums.transforms]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class RegionalSum:
    """The sum of some updates in fixed point, shape (manifest.values,), and the multiples of large buffers, by index.

    See `ExactSum.integers` and `ExactSum.multiples`.
    """

    integers: Int64s = field(repr=False)
    multiples: Mapping[int, int]

    def sections(self, manifest: Manifest) -> tuple[ModelSection, ...]:
        """Returns it as the sections of an update. Raises ``SumTooLarge`` if a multiple does not fit into 64 bits."""
        sections = [ModelSection(DELTA, manifest, SUM.of_integers(self.integers), SUM.name)]
        if self.multiples:
            if max(map(abs, self.multiples.values())) > MAX_INT64:
                raise SumTooLarge("the sum of a buffer does not fit into 64 bits: lower --max-buffer")
            large = np.zeros(manifest.values, np.int64)
            for index, multiple in self.multiples.items():
                large[index] = multiple
            sections.append(ModelSection(LARGE, manifest, SUM.of_integers(large), SUM.name))
        return tuple(sections)

    @classmethod
    def of(cls, integers: Int64s, large: Int64s | None) -> RegionalSum:
        """Returns the sum that two sections hold."""
        where = np.empty(0, np.intp) if large is None else np.flatnonzero(large)
        found = {} if large is None else dict(zip(where.tolist(), large[where].tolist(), strict=True))
        return cls(integers, found)


@dataclass(frozen=True, slots=True)
class SumCaps:
    """The largest magnitudes that one edge's update can add to a sum: of a parameter, a buffer, and a multiple.

    ``deviation``: of the noise that it adds to each parameter, in units of the sum.
    """

    parameter: int
    buffer: int
    multiple: int
    deviation: float = 0.0

    @classmethod
    def of(cls, strategy: Strategy, settings: Settings) -> SumCaps | None:
        """Returns the caps of a run; null if its combination is no sum."""
        combine = strategy.combine
        if not isinstance(combine, WeightedSum):
            return None

        def cap(weight: float) -> int:
            bits = scale_bits_of(weight, settings.max_delta, settings.slots, settings.fold_width)
            return int(weight * settings.max_delta * 2.0**bits) + 1  # each product is rounded

        step = 2.0 ** np.floor(np.log2(settings.max_delta))
        multiple = int(settings.max_examples * settings.max_buffer / step) + settings.max_examples
        return cls(cap(combine.max_weight(settings.max_examples)), cap(settings.max_examples), multiple)

    @classmethod
    def of_private(cls, settings: Settings, plan: Plan) -> SumCaps:
        """Returns the caps of a masked round whose edges clip their updates and add noise."""
        privacy = settings.privacy
        assert privacy is not None, "a private run"
        clip = privacy.clip * 2.0**settings.scale_bits
        return cls(int(clip), 0, 0, noise_of_edge(privacy.noise, plan.least, plan.colluders) * clip)

    def check(self, total: RegionalSum, manifest: Manifest, edges: int) -> None:
        """Raises ``SumTooLarge``, which names the value, if ``edges`` updates cannot have this sum."""
        start = 0
        for array in manifest.arrays:
            part = total.integers[start : start + array.values]
            noise = math.ceil(FARTHEST * self.deviation * math.sqrt(edges))
            cap = edges * (self.buffer if array.role == "buffer" else self.parameter) + noise
            largest = max(int(part.max(initial=0)), -int(part.min(initial=0)))
            if largest > cap:
                raise SumTooLarge(
                    f"{DELTA}: {array.name!r}: {largest}, but {edges} edges add up to at most {cap}"
                )
            start += array.values
        self._check_multiples(total.multiples, manifest, edges)

    def _check_multiples(self, multiples: Mapping[int, int], manifest: Manifest, edges: int) -> None:
        ends = np.cumsum([array.values for array in manifest.arrays])
        for index, multiple in multiples.items():
            array = manifest.arrays[int(np.searchsorted(ends, index, side="right"))]
            cap = edges * self.multiple if array.role == "buffer" else 0
            if abs(multiple) > cap:
                raise SumTooLarge(
                    f"{LARGE}: {array.name!r}: {multiple}, but {edges} edges add up to at most {cap}"
                )


def is_sum(names: Sequence[str]) -> bool:
    """Whether an update with these sections may be a sum."""
    return list(names) in ([DELTA], [DELTA, LARGE])
