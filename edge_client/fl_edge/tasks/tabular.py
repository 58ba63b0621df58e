"""``tabular``: classification and regression on tables, CSV or Parquet, with a linear model or an MLP. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fl_edge.data.columns import Choices, Schema, schema_from
from fl_edge.data.partition import hold_out
from fl_edge.data.rows import Rows
from fl_edge.data.statistics import ROUNDS, STATISTICS_SHAPE, Floats, SharedStatistics, Statistics
from fl_edge.errors import DataMismatchError, DataMissingError, PayloadError
from fl_edge.tasks import scoring
from fl_edge.tasks.answers import class_answer, number_answer
from fl_edge.tasks.classes import confusion_matrix
from fl_edge.tasks.dense import DenseLayers, DenseTask
from fl_edge.tasks.requests import json_object
from fl_edge.tasks.survey import Columns, Surveyed
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
from fl_shared.tensors.manifest import Manifest


class TabularOptions(TaskOptions):
    """The options of ``tabular``. Lists are separated by commas."""

    target: str = Field(description="The column to predict.")
    kind: Literal["auto", "classification", "regression"] = Field(
        "auto", description="auto: text or few whole numbers are classes."
    )
    classes: Names = Field((), description="The classes of the target. Default: those in the table.")
    columns: Names = Field((), description="The columns to learn from. Default: all.")
    ignore: Names = Field((), description="Columns to leave out.")
    categorical: Names = Field(
        (), description="Columns that are categories, with their values if declared: sex:male|female,zip."
    )
    buckets: int = Field(64, ge=2, le=4096, description="Places of a category whose values are not declared.")
    missing: Literal["mean", "drop"] = Field(
        "mean", description="mean: put the mean in gaps, and mark them; drop: leave out examples with gaps."
    )
    statistics: Literal["federation", "site"] = Field(
        "federation",
        description="Whose means and deviations standardise numbers; those of a site stay there.",
    )
    unit: str = Field("", max_length=20, description="The unit of a target that is a number.")
    model: Literal["linear", "mlp"] = Field("linear", description="mlp: one hidden layer.")
    hidden: int = Field(64, ge=1, le=4096, description="Hidden units of an MLP.")

    @model_validator(mode="after")
    def _check(self) -> TabularOptions:
        choices = self.choices
        if self.classes and (self.kind == "regression" or len(set(self.classes)) < 2):
            raise ValueError(
                f"classes={','.join(self.classes)}: expected two or more, and no kind=regression"
            )
        for name in (*self.columns, *self.ignore, *(name for name, _ in choices.categorical)):
            if name == self.target:
                raise ValueError(f"target={name}: is also a column to learn from, or to ignore")
        return self

    @property
    def choices(self) -> Choices:
        """What the options say about columns."""
        categorical = (
            (name, values) for name, _, values in (item.partition(":") for item in self.categorical)
        )
        return Choices(
            self.target,
            self.kind,
            self.classes,
            self.columns,
            self.ignore,
            tuple(
                (name.strip(), tuple(v.strip() for v in values.split("|") if v))
                for name, values in categorical
            ),
            self.buckets,
            self.missing == "drop",
        )


@dataclass(frozen=True, slots=True, eq=False)
class TableExamples(Examples):
    """Rows of tables: inputs as `Schema.inputs`; labels int64, or the numbers of a regression in float64.

    ``own``: the statistics of the edge that has the rows.
    """

    inputs: Floats
    labels: NDArray[Any]
    own: Statistics


class TabularTask(DenseTask):
    """A table for each edge, or one that is divided among edges."""

    name = "tabular"
    # Of four hospitals (heart disease): with more steps in a round their models part, and the mean is worse.
    defaults = TrainingDefaults(epochs=2, lr=0.01)
    Options = TabularOptions
    options: TabularOptions

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        self._rows: Rows | None = None
        self._schema: Schema | None = None
        """That of the edge's own tables or, without them, of the model that was received."""

    def prepare(self, data_dir: Path | None) -> None:
        if data_dir is not None:
            self._rows = Rows(self.options.choices, data_dir)
            self._use(self._rows.schema)

    def layers(self) -> DenseLayers:
        return self._layers(self._own_rows().schema)

    def layers_for(self, manifest: Manifest) -> DenseLayers:
        run = schema_from(self.options.choices, [array.name for array in manifest.arrays])
        if self._rows is not None and (problem := self._rows.difference(run)):
            raise DataMismatchError(problem)
        self._use(run)
        return self._layers(run)

    def load(self, context: LoadContext) -> LocalData:
        rows = self._own_rows()
        context.warn_if_divided(rows.path, len(rows.train[1]), "tables")
        train, holdout = hold_out(rows.part(context.partition), context.partition)
        inputs, labels = rows.train
        own = self._statistics_of(inputs[train], labels[train])
        return LocalData(
            TableExamples(inputs[train], labels[train], own),
            TableExamples(inputs[holdout], labels[holdout], own) if len(holdout) else None,
        )

    def load_test(self, data_dir: Path | None) -> Examples:  # noqa: ARG002  see prepare
        rows = self._own_rows()
        return TableExamples(
            *rows.test, self._statistics_of(*(rows.train if rows.files.train else rows.test))
        )

    def train(
        self,
        model: Any,
        data: LocalData,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        examples = self._encoded(data.train, self._statistics(model, _own(data.train)))
        report: TrainReport = model.fit(examples, settings, seed, cancelled)
        return report

    def finish(self, model: Any, data: LocalData) -> None:
        shared = self._shared(model)
        if shared is not None:
            model.set_buffers(shared.with_those_of(self._measured(data.train.inputs, data.train.labels)))

    def evaluate(self, model: Any, examples: Examples) -> Scores:
        statistics = self._statistics(model, _own(examples))
        encoded = self._encoded(examples, statistics)
        network = model.network()
        outputs = network.raw_outputs(encoded.inputs)
        labels = np.asarray(examples.labels)
        loss = float(network.losses(outputs, encoded).mean())
        if not self.labels:
            values = statistics.deviation[-1] * outputs[:, 0] + statistics.mean[-1]
            return Scores(len(labels), loss, scoring.regression_scores(labels, values))
        predicted = outputs.argmax(axis=1)
        metrics = {
            "accuracy": float((predicted == labels).mean()),
            "f1": scoring.macro_f1(labels, predicted, len(self.labels)),
        }
        if len(self.labels) == 2:
            metrics["auc"] = scoring.auc(labels == 1, outputs[:, 1] - outputs[:, 0])
        return Scores(len(labels), loss, metrics, confusion_matrix(self.labels, labels, predicted))

    def predict(self, model: Any, payload: bytes) -> Mapping[str, Any]:
        assert self._schema is not None
        example = json.dumps(self._schema.example_request(), ensure_ascii=False)
        inputs = self._schema.input_of(json_object(payload, f"{example:.300}"))
        own = None if self._rows is None else self._statistics_of(*self._rows.train)
        statistics = self._statistics(model, own)
        network, features = model.network(), self._features(inputs, statistics)
        if self.labels:
            return class_answer(self.labels, network.probabilities(features)[0])
        output = float(network.raw_outputs(features)[0, 0])
        return number_answer(statistics.deviation[-1] * output + statistics.mean[-1], self.options.unit)

    def survey_columns(self) -> Columns:
        schema = self._own_rows().schema
        target = () if schema.classes else (self.options.target,)
        declared = dict(schema.choices.categorical)
        return Columns(
            schema.classes,
            (*schema.numbers, *target),
            {name: tuple(dict.fromkeys(declared.get(name, ()))) for name in schema.categories},
        )

    def survey(self, context: LoadContext) -> Surveyed:
        data, schema = self.load(context).train, self._own_rows().schema
        inputs = dict(zip(schema.columns, np.asarray(data.inputs).T, strict=True))
        target = {} if schema.classes else {self.options.target: data.labels}
        return Surveyed(
            len(data),
            data.labels if schema.classes else (),
            {name: inputs[name] for name in schema.numbers} | target,
            {name: inputs[name] for name in schema.categories},
        )

    def example_request(self) -> Any:
        return None if self._schema is None else self._schema.example_request()

    def _use(self, schema: Schema) -> None:
        self._schema, self.labels = schema, schema.classes
        if not schema.classes:
            unit = self.options.unit
            self.metrics = (
                Metric("mae", higher_is_better=False, unit=unit, minimum=0.0),
                Metric("rmse", higher_is_better=False, unit=unit, minimum=0.0),
                Metric("r2", maximum=1.0),
            )
            return
        names = ("accuracy", "f1", "auc")[: 3 if len(schema.classes) == 2 else 2]
        self.metrics = tuple(
            Metric(name, unit="%" if name == "accuracy" else "", minimum=0.0, maximum=1.0) for name in names
        )

    def _own_rows(self) -> Rows:
        if self._rows is None:
            raise DataMissingError("task tabular needs a table: --data DIR with *.csv or *.parquet")
        return self._rows

    def _layers(self, schema: Schema) -> DenseLayers:
        hidden = (self.options.hidden,) if self.options.model == "mlp" else ()
        outputs = len(schema.classes) or 1
        inputs = len(schema.numbers) * (1 if schema.choices.drop_missing else 2)
        inputs += sum(map(schema.width, schema.categories))
        names: dict[str, tuple[int, ...]] = dict.fromkeys(schema.array_names(), (0,))
        if self.options.statistics == "federation":
            names |= dict.fromkeys(schema.measured(), STATISTICS_SHAPE)
            names[ROUNDS] = (1,)
        return DenseLayers(
            (inputs, *hidden, outputs),
            "cross-entropy" if schema.classes else "squared",
            buffers=tuple(names.items()),
        )

    def _measured(self, inputs: Floats, labels: NDArray[Any]) -> Floats:
        """Returns the columns that have statistics: the numbers, and a target that is a number."""
        assert self._schema is not None
        numbers = inputs[:, : len(self._schema.numbers)]
        return numbers if self.labels else np.column_stack([numbers, labels])

    def _statistics_of(self, inputs: Floats, labels: NDArray[Any]) -> Statistics:
        return Statistics.of(self._measured(inputs, labels))

    def _shared(self, model: Any) -> SharedStatistics | None:
        if self.options.statistics == "site":
            return None
        assert self._schema is not None
        return SharedStatistics(self._schema.measured(), model.network().arrays)

    def _statistics(self, model: Any, own: Statistics | None) -> Statistics:
        """Returns the federation's statistics if they are used and known, else the edge's own."""
        shared = self._shared(model)
        if shared is not None and shared.known:
            return shared.statistics
        if own is None:
            raise PayloadError(
                "this edge has no table, so it has no statistics to standardise numbers with: ask another edge"
            )
        return own

    def _encoded(self, examples: Examples, statistics: Statistics) -> Examples:
        """Returns the examples as the model takes them."""
        labels = np.asarray(examples.labels)
        if not self.labels:
            labels = ((labels - statistics.mean[-1]) / statistics.deviation[-1]).astype(np.float32)[:, None]
        return Examples(self._features(np.asarray(examples.inputs), statistics), labels)

    def _features(self, inputs: Floats, statistics: Statistics) -> NDArray[np.float32]:
        """Returns the model's inputs: standardised numbers, which are missing, and categories."""
        assert self._schema is not None
        count = len(self._schema.numbers)
        numbers = inputs[:, :count]
        parts = [np.nan_to_num(statistics.standardized(numbers))]
        if not self._schema.choices.drop_missing:
            parts.append(np.isnan(numbers))
        for i, name in enumerate(self._schema.categories, start=count):
            # A place that is missing (NaN) equals none.
            parts.append(inputs[:, i : i + 1] == np.arange(self._schema.width(name)))
        return np.concatenate(parts, axis=1, dtype=np.float32)


def _own(examples: Examples) -> Statistics:
    assert isinstance(examples, TableExamples)
    return examples.own
