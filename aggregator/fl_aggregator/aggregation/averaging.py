"""Makes the next model: folds updates on arrival, averages them, and keeps the models that are in use."""

from __future__ import annotations

import math

import numpy as np

from fl_aggregator.aggregation.exact_sum import BLOCK, ExactSum
from fl_aggregator.aggregation.strategies.registry import Strategy
from fl_aggregator.aggregation.validation import CheckedUpdate, ExpectedUpdate
from fl_aggregator.settings import Settings
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.initial_weights import PlainWeights
from fl_aggregator.storage.run_directory import RunDirectory
from fl_aggregator.storage.update_content import UpdateContent
from fl_shared.protocol import messages as m
from fl_shared.tensors.manifest import Manifest, Vector
from fl_shared.tensors.sections import DELTA


class Averager:
    """Holds the sum of the open round's updates, and the newest two models."""

    def __init__(self, settings: Settings, strategy: Strategy, directory: RunDirectory) -> None:
        self._settings = settings
        self._strategy = strategy
        self._metadata = {"task": settings.task, "settings": settings.digest}
        self._checkpoints = directory.checkpoints
        self._newest: tuple[int, Model] | None = None
        self.previous: Model | None = None
        self._base: Model | None = None
        self._expected: ExpectedUpdate | None = None
        self._sum: ExactSum | None = None
        self._first_weights: tuple[Manifest, Vector] | None = None
        self.plain_weights: PlainWeights | None = None
        """What the user gave in place of the values of the initial weights that an edge makes."""
        self._unwritten_model: Model | None = None
        """The average that is not on disk yet."""

    @property
    def newest(self) -> Model:
        """The model of the newest version. There must be one."""
        assert self._newest is not None
        return self._newest[1]

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the models of the run, if there is one."""
        return None if self._newest is None else self._newest[1].manifest

    def add(self, version: int, model: Model) -> None:
        """Writes a version to disk and keeps it in memory; the version before it is read from its file.

        Raises ``OSError`` if it cannot be written; nothing has changed then.
        """
        self._checkpoints.write(version, model, self._metadata)  # may fail, and is repeated then
        self.previous = None if self._newest is None else self._checkpoints.memory_mapped(*self._newest)
        self._newest = (version, model)

    def restore(self, version: int, model: Model, previous: Model | None) -> None:
        """Takes over the newest version and the one before it, which are both on disk already."""
        self._newest = (version, model)
        self.previous = None if previous is None else self._checkpoints.memory_mapped(version - 1, previous)

    def expected(self, base: m.ModelReference | None, encoding: str) -> ExpectedUpdate:
        """Returns what each update of a round with this base must contain; a null base means round 0."""
        if base is None:  # initial weights: with any strategy one section, without a cap
            return ExpectedUpdate((DELTA,), encoding, None, math.inf, math.inf)
        caps = self._settings.max_delta, self._settings.max_buffer
        return ExpectedUpdate(self._strategy.sections, encoding, self.newest.manifest, *caps)

    def begin_round(self, base: m.ModelReference | None, expected: ExpectedUpdate) -> None:
        """Empties the sum for a new round, and remembers its base, which must be the newest version."""
        self._expected = expected
        self._base = None if base is None else self.newest
        self._unwritten_model = None
        assert base is None or self.newest.digest == base.digest, "rounds build on the newest version"
        self._first_weights = None
        slots = self._settings.per_round + self._settings.over_select
        self._sum = (
            None
            if self._base is None
            else ExactSum(
                self._base.manifest.values, self._settings.scale_bits, slots, self._settings.max_delta
            )
        )

    def check(self, update: UpdateContent) -> CheckedUpdate:
        """Checks an update and decodes it, so that it can be folded. Raises ``InvalidUpdate``."""
        assert self._expected is not None, "a round is open"
        return self._expected.check(update)

    def fold(self, update: CheckedUpdate, examples: int) -> None:
        """Adds an update, weighted by its examples, to the sum; in round 0, copies the initial weights.

        Raises ``UserError`` if the weights that the user gave do not fit the edge's model.
        """
        if self._sum is None:
            given, manifest = self.plain_weights, update.manifest
            self._first_weights = (
                manifest,
                update.delta.values.copy() if given is None else given.fit(manifest),
            )
        else:
            self._sum.add(update.delta.values, examples, update.delta.magnitude)

    def average(self, version: int) -> Model:
        """Makes the next version and writes it to disk. Initial weights are copied, never folded.

        Raises ``OSError`` if it cannot be written; nothing is lost, and the call may be repeated.
        """
        if self._unwritten_model is None:
            self._unwritten_model = self._compute_model()
        model = self._unwritten_model
        self.add(version, model)
        self._unwritten_model = None
        return model

    def _compute_model(self) -> Model:
        if self._base is None or self._sum is None:
            assert self._first_weights is not None
            model = Model.of(*self._first_weights)
        else:
            base, total = self._base.weights, self._sum
            weights = np.empty_like(base)
            for start in range(0, len(base), BLOCK):
                stop = start + BLOCK
                weights[start:stop] = self._strategy.next_weights(base[start:stop], total.mean(start, stop))
            self._sum = None
            model = Model.of(self._base.manifest, weights)
        self._base = self._sum = self._first_weights = None
        return model
