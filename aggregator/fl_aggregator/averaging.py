"""From updates to the next model: checks, folds on arrival, averages, and keeps the models that are in use."""

from __future__ import annotations

from typing import Final

from fl_aggregator import effects as do
from fl_aggregator.check import Content, first_weights_of, weights_of
from fl_aggregator.checkpoint import Model
from fl_aggregator.events import UpdateFacts
from fl_aggregator.fold import ExactSum
from fl_aggregator.rundir import RunDirectory
from fl_aggregator.settings import Settings
from fl_aggregator.strategies import Strategy
from fl_shared import messages as m
from fl_shared.tensors import Manifest, Vector

MODELS_KEPT: Final = 2
"""The newest, which is the open round's base, and the one before, which may still be under evaluation."""


class Averaging:
    """Holds the sum of the open round and the newest models; knows nothing of rounds but what it is told."""

    def __init__(self, settings: Settings, strategy: Strategy, directory: RunDirectory) -> None:
        self._settings = settings
        self._strategy = strategy
        self._checkpoints = directory.checkpoints
        self._models: dict[str, Model] = {}
        self._base: Model | None = None
        self._manifest: str | None = None
        self._sum: ExactSum | None = None
        self._checked: tuple[str, Manifest, Vector] | None = None
        self._first: tuple[Manifest, Vector] | None = None

    def model(self, digest: str) -> Model:
        return self._models[digest]

    def add(self, version: int, model: Model) -> None:
        """Writes a version to disk and keeps it in memory."""
        self._checkpoints.write(version, model)
        self._models.pop(model.digest, None)
        self._models[model.digest] = model
        for digest in list(self._models)[:-MODELS_KEPT]:
            del self._models[digest]

    def begin(self, base: m.ModelReference | None) -> None:
        """A round opens: its sum is empty."""
        self._base = None if base is None else self._models[base.digest]
        self._first = None
        slots = self._settings.per_round + self._settings.over_select
        self._sum = (
            None
            if self._base is None
            else ExactSum(self._base.manifest.values, self._settings.scale_bits, slots)
        )

    def check(self, update: Content) -> None:
        """Looks at an update's values; ``fold`` may follow. Raises ``check.Unusable``."""
        if self._base is None:
            self._checked = (update.digest, *first_weights_of(update, None))
        else:
            manifest = self._base.manifest
            self._checked = (update.digest, manifest, weights_of(update, manifest, self._settings.fold))

    def let_go(self) -> None:
        """What was checked last will not be folded."""
        self._checked = None

    def fold(self, update: UpdateFacts) -> None:
        """Adds the update that was checked last to the sum."""
        assert self._checked is not None
        digest, manifest, vector = self._checked
        assert digest == update.digest, "it was checked in the same turn"
        self._checked = None
        if self._sum is None:
            self._first = (manifest, vector.copy())
        else:
            self._sum.add(vector, update.examples)

    def average(self, effect: do.Average) -> Model:
        """The next version, on disk. First weights are copied, never folded."""
        if self._base is None or self._sum is None:
            assert self._first is not None
            model = Model.of(*self._first)
        else:
            weights = self._strategy.next_model(self._base.weights, self._sum.mean())
            model = Model.of(self._base.manifest, weights)
        self.add(effect.version, model)
        self._sum = self._first = None
        return model
