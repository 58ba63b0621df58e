"""``series``: forecasts and anomalies in tables of measurements over time. Without ``model=gru`` it needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fl_edge.data.series import Series, SeriesChoices, Windows
from fl_edge.data.statistics import ROUNDS, STATISTICS_SHAPE, Floats, SharedStatistics, Statistics
from fl_edge.errors import DataMismatchError, DataMissingError, PayloadError, UnknownTaskError
from fl_edge.tasks import scoring
from fl_edge.tasks.answers import series_answer
from fl_edge.tasks.dense import DenseLayers, DenseTask
from fl_edge.tasks.requests import steps_of
from fl_edge.tasks.task import (
    Examples,
    LoadContext,
    LocalData,
    Metric,
    Names,
    Scores,
    TaskOptions,
    TrainingDefaults,
    TrainReport,
)
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.system.text import size_text
from fl_shared.tensors.manifest import Manifest, Vector

COLUMN: Final = "column."
"""In front of the name of a column, in that of the buffer with its statistics."""
MAX_WINDOW_BYTES: Final = 2**30
"""Of all windows of an edge, which overlap; in training there are two copies of them."""
MAX_EXAMPLE_VALUES: Final = 10_000
"""In the example of a request."""


class SeriesOptions(TaskOptions):
    """The options of ``series``. Lists are separated by commas."""

    goal: Literal["forecast", "anomaly"] = Field(
        "forecast",
        description="forecast: predict the target; anomaly: find windows that are unlike the rest.",
    )
    target: str = Field("", description="The column to forecast.")
    columns: Names = Field((), description="The columns to learn from. Default: all that have numbers.")
    time: str = Field(
        "", description="The column that tells the order of the rows. Default: they are in order."
    )
    window: int = Field(24, ge=1, le=10_000, description="Steps that the model sees.")
    horizon: int = Field(1, ge=1, le=1_000, description="Steps that a forecast looks ahead.")
    stride: int = Field(1, ge=1, le=10_000, description="Steps from one window to the next.")
    unit: str = Field("", max_length=16, description="The unit of the target.")
    model: Literal["auto", "gru", "mlp"] = Field(
        "auto", description="auto: a GRU for forecasts; anomalies take an MLP. Only an MLP needs no PyTorch."
    )
    hidden: int = Field(
        32, ge=1, le=4096, description="Hidden units; for anomalies at most a third of the inputs."
    )
    quantile: float = Field(
        0.99, gt=0, le=1, description="Of an edge's own errors: a greater error is an anomaly."
    )

    @model_validator(mode="after")
    def _check(self) -> SeriesOptions:
        if self.goal == "forecast" and not self.target:
            raise ValueError("a forecast needs --task-option target=COLUMN (or goal=anomaly)")
        if self.goal == "anomaly" and (self.target or self.model == "gru"):
            raise ValueError("goal=anomaly has no target, and takes model=mlp")
        if self.time and self.time in (self.target, *self.columns):
            raise ValueError(f"time={self.time}: is also a column to learn from")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class SeriesExamples(Examples):
    """Windows: ``inputs`` and ``labels`` are both the numbers of the steps at which they begin, in ``steps``.

    ``own``: the windows that the edge trains on; None for the test split.
    """

    steps: Floats
    own: Windows | None

    @property
    def windows(self) -> Windows:
        """The windows."""
        return Windows(self.steps, np.asarray(self.inputs))


class SeriesTask(DenseTask):
    """Tables of measurements, a row a time step, for each edge: forecasts with a GRU or an MLP, or anomalies."""

    name = "series"
    # One pass: an edge whose level differs from the others' would else pull the model away from theirs.
    defaults = TrainingDefaults(epochs=1, lr=0.02)
    Options = SeriesOptions
    options: SeriesOptions

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        chosen = self.options
        self._forecasts = chosen.goal == "forecast"
        self._recurrent = self._forecasts and chosen.model != "mlp"
        length = chosen.window + (chosen.horizon if self._forecasts else 0)
        self._choices = SeriesChoices(chosen.columns, chosen.target, chosen.time, length, chosen.stride)
        self._series: Series | None = None
        self._columns: tuple[str, ...] = ()
        """Those of the edge's own tables or, without them, of the model that was received."""
        if self._forecasts:
            self.metrics = tuple(
                Metric(name, higher_is_better=False, unit=chosen.unit, minimum=0.0)
                for name in ("mae", "rmse")
            )
        else:
            self.metrics = (
                Metric("reconstruction_error", higher_is_better=False, minimum=0.0),
                Metric("flagged", higher_is_better=False, unit="%", minimum=0.0, maximum=1.0),
            )

    def prepare(self, data_dir: Path | None) -> None:
        if data_dir is not None:
            self._series = Series(self._choices, data_dir)
            self._columns = self._series.columns

    def layers(self) -> DenseLayers:
        self._own_series()
        return self._layers()

    def layers_for(self, manifest: Manifest) -> DenseLayers:
        self._take_columns(manifest)
        return self._layers()

    def model(self, seed: int) -> Any:
        self._own_series()
        return self._torch_model(seed)

    def model_for(self, manifest: Manifest, seed: int) -> Any:
        self._take_columns(manifest)
        return self._torch_model(seed)

    def load(self, context: LoadContext) -> LocalData:
        series = self._own_series()
        train, holdout = series.part(context.partition)
        context.warn_if_divided(series.path, series.steps, "tables")
        size = 4 * len(train) * self._choices.length * len(self._columns)
        if size > MAX_WINDOW_BYTES:
            raise DataMissingError(
                f"{series.path}: its {len(train)} windows have {size_text(size)}, "
                f"expected at most {size_text(MAX_WINDOW_BYTES)}: --task-option "
                f"stride={math.ceil(size / MAX_WINDOW_BYTES) * self.options.stride}"
            )
        return LocalData(_examples(train, train), _examples(holdout, train) if len(holdout) else None)

    def load_test(self, data_dir: Path | None) -> Examples:  # noqa: ARG002  see prepare
        return _examples(self._own_series().test, None)

    def train(
        self,
        model: Any,
        data: LocalData,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        windows = _windows(data.train)
        encoded = self._encoded(windows, self._statistics(model, windows))
        report: TrainReport = model.fit(encoded, settings, seed, cancelled)
        return report

    def finish(self, model: Any, data: LocalData) -> None:
        model.set_buffers(self._shared(model).with_those_of(_windows(data.train).steps))

    def evaluate(self, model: Any, examples: Examples) -> Scores:
        assert isinstance(examples, SeriesExamples)
        windows, own = examples.windows, examples.own
        statistics = self._statistics(model, windows if own is None else own)
        outputs, errors = self._errors(model, windows, statistics)
        loss = float(errors.mean())
        if not self._forecasts:
            metrics = {"reconstruction_error": loss}
            if own is not None:
                threshold = self._threshold(model, own, statistics)
                metrics["flagged"] = float((errors > threshold).mean())
            return Scores(len(windows), loss, metrics)
        target = windows.steps[:, self._target]
        actual = sliding_window_view(target, self._choices.length)[windows.starts, self.options.window :]
        scores = scoring.regression_scores(actual, self._in_units(outputs, statistics))
        return Scores(len(windows), loss, {name: scores[name] for name in ("mae", "rmse")})

    def predict(self, model: Any, payload: bytes) -> Mapping[str, Any]:
        return self.predictor(model, None)(payload)

    def predictor(self, model: Any, context: LoadContext | None) -> Callable[[bytes], Mapping[str, Any]]:
        own = self._own_windows(context)
        statistics = self._statistics(model, own)
        threshold = None
        if own is not None and not self._forecasts:
            threshold = self._threshold(model, own, statistics)
        return partial(self._answer, model, statistics, threshold)

    def example_request(self) -> Any:
        if not 0 < len(self._columns) * self.options.window <= MAX_EXAMPLE_VALUES:
            return None
        return {"columns": self._columns, "values": [[0] * len(self._columns)] * self.options.window}

    @property
    def _target(self) -> int:
        return self._columns.index(self.options.target)

    def _own_series(self) -> Series:
        if self._series is None:
            raise DataMissingError(
                "task series needs tables: --data DIR with *.csv or *.parquet, a row a time step"
            )
        return self._series

    def _own_windows(self, context: LoadContext | None) -> Windows | None:
        """Returns the windows that the edge trains on; all of its tables if its partition is not known."""
        if self._series is None or not self._series.has_train:
            return None
        return self._series.whole if context is None else self._series.part(context.partition)[0]

    def _take_columns(self, manifest: Manifest) -> None:
        """Takes the columns of the run. Raises ``ManifestMismatchError`` if the edge's own tables have others."""
        run = sorted(a.name.removeprefix(COLUMN) for a in manifest.arrays if a.name.startswith(COLUMN))
        if self._series is None:
            chosen = self._choices.all_columns
            self._columns = chosen if sorted(chosen) == run else tuple(run)
        elif odd := sorted(set(run) ^ set(self._columns)):
            state = "is missing" if odd[0] in run else "is not in the run"
            raise DataMismatchError(
                f"{self._series.first_file}: row 1: column {odd[0]!r} {state}; the run has: {', '.join(run)} "
                f"(--task-option columns={','.join(run)})"
            )

    def _layers(self) -> DenseLayers:
        if self._recurrent:
            raise UnknownTaskError(
                "task 'series' needs torch for a GRU: expected --task-option model=mlp, or an edge with torch"
            )
        inputs, hidden = self.options.window * len(self._columns), self.options.hidden
        buffers = tuple(self._buffers().items())
        if self._forecasts:
            return DenseLayers((inputs, hidden, self.options.horizon), "squared", buffers=buffers)
        # As many units as inputs could copy them, and no window would be odd.
        sizes = (inputs, min(hidden, max(1, inputs // 3)), inputs)
        return DenseLayers(sizes, "reconstruction", buffers=buffers)

    def _torch_model(self, seed: int) -> Any:
        if not self._recurrent:
            return self._layers().torch_module(seed)
        from fl_edge.tasks.recurrent import GruModule

        return GruModule(len(self._columns), self.options.hidden, self.options.horizon, self._buffers())

    def _buffers(self) -> dict[str, tuple[int, ...]]:
        return {ROUNDS: (1,)} | {COLUMN + name: STATISTICS_SHAPE for name in self._columns}

    def _shared(self, model: Any) -> SharedStatistics:
        return SharedStatistics(tuple(COLUMN + name for name in self._columns), model.network().arrays)

    def _statistics(self, model: Any, own: Windows | None) -> Statistics:
        """Returns the federation's statistics if they are known, else those of the edge's ``own`` steps."""
        shared = self._shared(model)
        if shared.known:
            return shared.statistics
        if own is None:
            raise PayloadError(
                "the model has not been trained, and this edge has no table to standardise with: ask later"
            )
        return Statistics.of(own.steps)

    def _encoded(self, windows: Windows, statistics: Statistics) -> Examples:
        """Returns the windows as the model takes them: shape (windows, steps × columns), and the target after each."""
        standard = statistics.standardized(windows.steps).astype(np.float32)
        length, window = self._choices.length, self.options.window
        cut = sliding_window_view(standard, (length, standard.shape[1]))[windows.starts, 0]
        inputs = cut[:, :window].reshape(len(cut), -1)
        labels = np.ascontiguousarray(cut[:, window:, self._target]) if self._forecasts else inputs
        return Examples(inputs, labels)

    def _errors(
        self, model: Any, windows: Windows, statistics: Statistics
    ) -> tuple[Vector, NDArray[np.float64]]:
        """Returns the model's outputs, and the mean squared error of each window, in squared standard deviations."""
        encoded = self._encoded(windows, statistics)
        outputs: Vector = model.network().raw_outputs(encoded.inputs)
        return outputs, np.square(outputs - encoded.labels, dtype=np.float64).mean(axis=1)

    def _threshold(self, model: Any, own: Windows, statistics: Statistics) -> float:
        """Returns the error above which a window is an anomaly to this edge. It is only told in answers."""
        return float(np.quantile(self._errors(model, own, statistics)[1], self.options.quantile))

    def _in_units(self, outputs: Vector, statistics: Statistics) -> Floats:
        deviation, mean = statistics.deviation[self._target], statistics.mean[self._target]
        return np.asarray(outputs * deviation + mean, np.float64)

    def _answer(
        self, model: Any, statistics: Statistics, threshold: float | None, payload: bytes
    ) -> Mapping[str, Any]:
        steps = steps_of(payload, self._columns, self.options.window)
        if self._forecasts:
            inputs = statistics.standardized(steps).astype(np.float32).reshape(1, -1)
            outputs = model.network().raw_outputs(inputs)[0]
            return series_answer(self._in_units(outputs, statistics), self.options.unit)
        errors = self._errors(model, Windows(steps, np.zeros(1, np.int64)), statistics)[1]
        error = float(errors[0])
        return {
            "value": error,
            "anomaly": None if threshold is None else error > threshold,
            "threshold": threshold,
        }


def _examples(windows: Windows, own: Windows | None) -> SeriesExamples:
    return SeriesExamples(windows.starts, windows.starts, windows.steps, own)


def _windows(examples: Examples) -> Windows:
    assert isinstance(examples, SeriesExamples)
    return examples.windows
