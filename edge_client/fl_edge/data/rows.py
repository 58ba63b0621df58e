"""The examples in the tables of a directory, and which of them belong to an edge."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_edge.data.categories import warn_of_categories
from fl_edge.data.columns import Choices, Schema, difference, schema_of
from fl_edge.data.partition import Indices, partition_index, partitions
from fl_edge.data.statistics import Floats
from fl_edge.data.tables import Table, find_tables, read_table
from fl_edge.errors import DataMismatchError, DataMissingError
from fl_shared.protocol.messages import Partition
from fl_shared.protocol.partition_scheme import Dirichlet, Natural, Pathological, Shards, parse_scheme

LOG: Final = logging.getLogger(__name__)

Labelled = tuple[Floats, NDArray[Any]]
"""Inputs, as `Schema.inputs`, and labels (int64) or the numbers of a regression (float64)."""


class Rows:
    """The examples in ``path``. Raises ``DataMissingError`` naming the file, the row and the column that is wrong."""

    def __init__(self, choices: Choices, path: Path) -> None:
        self.path = path
        self.files = find_tables(path)
        self._choices = choices

    @cached_property
    def schema(self) -> Schema:
        """The columns of all tables."""
        files = self.files.train or (self._test_file(),)
        tables = [read_table(file) for file in files]
        schema = schema_of(self._choices, tables)
        warn_of_categories(schema, tables)
        return schema

    @cached_property
    def train(self) -> Labelled:
        """All examples but those of the test split."""
        return _joined(self._tables)

    @cached_property
    def test(self) -> Labelled:
        """The test split."""
        return self._labelled(read_table(self._test_file()))

    def difference(self, run: Schema) -> str | None:
        """Returns how the tables differ from those of the run, in one line; None if they do not."""
        problem = difference(run, self.schema)
        if problem is None:
            return None
        unknown = sorted(set(self.schema.classes) - set(run.classes))
        if run.columns == self.schema.columns and run.classes and unknown:
            target = self._choices.target
            for table in map(read_table, self.files.train):
                found = table.columns[target].where(lambda text: text == unknown[0])
                if found.any():
                    return f"{table.path}: row {table.rows[found.argmax()]}: {problem}"
        return f"{self.files.first}: {problem}"

    def part(self, partition: Partition) -> Indices:
        """Returns which examples belong to the partition: with ``natural`` those of the k-th table.

        Raises ``ValueError`` naming the member of ``partition`` that does not fit.
        """
        scheme = parse_scheme(partition.scheme)
        if isinstance(scheme, Natural):
            return self._table_number(partition.index)
        if isinstance(scheme, Shards | Pathological | Dirichlet) and not self.schema.classes:
            raise ValueError(
                f"scheme: {partition.scheme} divides by classes, but the target is a number "
                "(expected --partition iid, quantity:ALPHA, natural or own)"
            )
        labels = (
            self.train[1].astype(np.int64) if self.schema.classes else np.zeros(len(self.train[1]), np.int64)
        )
        return partitions(labels, partition)[partition_index(partition)]

    def _table_number(self, index: int) -> Indices:
        sizes = [len(labels) for _, labels in self._tables]
        if index >= len(sizes):
            raise DataMissingError(
                f"{self.path}: has {len(sizes)} tables, but this edge's is number {index + 1} (--partition natural); "
                "if each edge has tables of its own: --partition own"
            )
        start = sum(sizes[:index])
        return np.arange(start, start + sizes[index], dtype=np.int64)

    @cached_property
    def _tables(self) -> list[Labelled]:
        if not self.files.train:
            raise DataMissingError(
                f"{self.path}: has no table but the test split, expected *.csv or *.parquet"
            )
        return [self._labelled(read_table(file)) for file in self.files.train]

    def _test_file(self) -> Path:
        if self.files.test is None:
            raise DataMissingError(f"{self.path}: has no test split, expected test.csv or test.parquet")
        return self.files.test

    def _labelled(self, table: Table) -> Labelled:
        """Returns the examples without those that have a gap in the target, or anywhere if gaps are dropped."""
        schema, target = self.schema, self._choices.target
        lacking = [name for name in (*schema.columns, target) if name not in table.columns]
        if lacking:
            raise DataMismatchError(f"{table.path}: row 1: column {lacking[0]!r} is missing")
        inputs, targets = schema.inputs(table), schema.targets(table)
        gaps = np.isnan(targets)[:, None]
        if self._choices.drop_missing:
            gaps = np.column_stack([gaps, np.isnan(inputs)])
        complete: NDArray[np.bool_] = ~np.any(gaps, axis=1)
        if not complete.all():
            names = (target, *schema.columns)
            most = int(gaps.sum(axis=0).argmax())
            text = f"column {names[most]!r} has {gaps[:, most].sum()}"
            if not complete.any():
                raise DataMismatchError(
                    f"{table.path}: no example is left without the {len(complete)} that have gaps: {text}"
                )
            LOG.info(
                "%s: left out %d of %d examples with gaps: %s",
                table.path,
                (~complete).sum(),
                len(complete),
                text,
            )
        labels = targets[complete]
        return inputs[complete], labels.astype(np.int64) if schema.classes else labels


def _joined(tables: Sequence[Labelled]) -> Labelled:
    return np.concatenate([inputs for inputs, _ in tables]), np.concatenate([labels for _, labels in tables])
