"""What the columns of a table mean to a model: numbers, categories, and the target.

A `Schema` is part of the model's manifest, as the names of arrays. So edges whose columns differ are told apart, and an
edge without a table knows the columns from the model.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_edge.data.tables import Column, Table, is_missing, number_of
from fl_edge.errors import DataMismatchError, PayloadError

LOG: Final = logging.getLogger(__name__)

NUMBER, CATEGORY, TARGET, CLASS = "number.", "category.", "target.", "class."
"""The names of arrays begin with these, then comes the name of the column or the class."""
MAX_AUTO_CLASSES: Final = 10
"""A target of whole numbers is a class if it has at most so many different values."""
MAX_CLASSES: Final = 1_000
MAX_CLASS_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user has chosen about the columns; see ``fl_edge.tasks.tabular.TabularOptions``."""

    target: str
    kind: str = "auto"
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    categorical: tuple[tuple[str, tuple[str, ...]], ...] = ()
    buckets: int = 64
    drop_missing: bool = False


@dataclass(frozen=True)
class Schema:
    """The columns of a model: ``numbers`` and ``categories`` by name, in this order in its inputs, and the target.

    ``classes`` are those of the target; empty: the target is a number.
    """

    choices: Choices
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    classes: tuple[str, ...]

    @cached_property
    def _declared(self) -> dict[str, dict[str, int]]:
        return {
            name: {value.casefold(): i for i, value in enumerate(values)}
            for name, values in self.choices.categorical
            if values
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the inputs."""
        return self.numbers + self.categories

    def width(self, category: str) -> int:
        """Returns the number of places of a category: its declared values, or the buckets of the hash."""
        return len(self._declared.get(category, ())) or self.choices.buckets

    def places_text(self, category: str) -> str:
        """Returns in words which values a category has."""
        declared = dict(self.choices.categorical).get(category)
        return "|".join(declared)[:200] if declared else f"hashed into {self.choices.buckets} buckets"

    def place(self, category: str, text: str) -> int | None:
        """Returns the place of a value, or None if the category's values are declared and this is none of them.

        Upper and lower case do not matter.
        """
        folded = text.casefold()
        if category in self._declared:
            return self._declared[category].get(folded)
        return zlib.crc32(f"{category}\0{folded}".encode()) % self.choices.buckets

    def array_names(self) -> tuple[str, ...]:
        """Returns the names of the arrays that tell this schema."""
        return (
            *(NUMBER + name for name in self.numbers),
            *(CATEGORY + name for name in self.categories),
            TARGET + self.choices.target,
            *(CLASS + name for name in self.classes),
        )

    def measured(self) -> tuple[str, ...]:
        """Returns the names of the arrays for the statistics of numbers, the target last if it is one."""
        return (
            *(NUMBER + name for name in self.numbers),
            *(() if self.classes else (TARGET + self.choices.target,)),
        )

    def example_request(self) -> dict[str, Any]:
        """Returns a request with all columns."""
        values = {name: next(iter(self._declared.get(name, ())), "text") for name in self.categories}
        return dict.fromkeys(self.numbers, 0) | values

    def inputs(self, table: Table) -> NDArray[np.float64]:
        """Returns the inputs of all examples, shape (examples, columns).

        A number is as it is in the table, a category is its place; NaN: missing. Raises ``DataCorruptError``.
        """
        values = np.empty((len(table), len(self.columns)), np.float64)
        for i, name in enumerate(self.columns):
            column = table.columns[name]
            found = [None if is_missing(text) else self._value(name, text) for text in column.texts]
            values[:, i] = np.array([np.nan if v is None else v for v in found], np.float64)[column.codes]
            bad = np.isnan(values[:, i]) & column.where(lambda text: not is_missing(text))
            if bad.any():
                table.fail_at(int(bad.argmax()), name, self._expected(name) + self._mend(name))
        return values

    def targets(self, table: Table) -> NDArray[np.float64]:
        """Returns the number, or the label, of each example, NaN where it is missing. Raises ``DataCorruptError``."""
        name = self.choices.target
        column = table.columns[name]
        if not self.classes:
            bad = column.where(lambda text: not is_missing(text) and number_of(text) is None)
            if bad.any():
                table.fail_at(int(bad.argmax()), name, "is no number, expected one: the task is a regression")
            return column.numbers()
        labels = {label: float(i) for i, label in enumerate(self.classes)}
        bad = column.where(lambda text: not is_missing(text) and text not in labels)
        if bad.any():
            table.fail_at(
                int(bad.argmax()), name, f"is an unknown class, expected one of: {', '.join(self.classes)}"
            )
        return np.array([labels.get(text, np.nan) for text in column.texts])[column.codes]

    def input_of(self, request: Mapping[str, Any]) -> NDArray[np.float64]:
        """Returns the inputs of one request, shape (1, columns). Raises ``PayloadError`` naming the member."""
        known = {*self.columns, *self.choices.ignore, self.choices.target}
        unknown = [name for name in request if name not in known]
        if unknown:
            raise PayloadError(f"{unknown[0]!r:.80} is unknown, expected any of: {', '.join(self.columns)}")
        values = np.full((1, len(self.columns)), np.nan)
        for i, name in enumerate(self.columns):
            given = request.get(name)
            text = "" if given is None else str(given).strip()
            if is_missing(text):
                if self.choices.drop_missing:
                    raise PayloadError(f"{name!r} is missing, expected a value (the run has missing=drop)")
                continue
            value = self._value(name, text)
            if value is None or isinstance(given, dict | list):
                raise PayloadError(f"{name!r}: {text[:80]!r} {self._expected(name)}")
            values[0, i] = value
        if np.isnan(values).all():
            raise PayloadError(f"no column has a value, expected any of: {', '.join(self.columns)}")
        return values

    def _value(self, name: str, text: str) -> float | None:
        return self.place(name, text) if name in self.categories else number_of(text)

    def _expected(self, name: str) -> str:
        if name in self.categories:
            return (
                f"is an unknown category, expected one of: {', '.join(dict(self.choices.categorical)[name])}"
            )
        return "is no number, expected one"

    def _mend(self, name: str) -> str:
        """Returns what to do about a wrong cell in a table."""
        mend = " as in most rows: correct the cell, or leave it empty"
        return (
            "" if name in self.categories else f"{mend} (a column of text: --task-option categorical={name})"
        )


def schema_of(choices: Choices, tables: Sequence[Table]) -> Schema:
    """Returns the schema of the tables, which must have the same columns. Raises ``DataCorruptError``."""
    first, *others = tables
    _check_named(choices, first)
    used = [
        name
        for name in first.columns
        if name != choices.target
        and name not in choices.ignore
        and name in (choices.columns or first.columns)
    ]
    if not used:
        raise DataMismatchError(
            f"{first.path}: row 1: has no column but the target {choices.target!r} to learn from"
        )
    for table in others:
        lacking = [name for name in (*used, choices.target) if name not in table.columns]
        more = [name for name in table.columns if name not in first.columns and not choices.columns]
        if lacking:
            raise DataMismatchError(
                f"{table.path}: row 1: column {lacking[0]!r} is missing, which {first.path} has"
            )
        if more:
            raise DataMismatchError(f"{table.path}: row 1: column {more[0]!r} is not in {first.path}")
    declared = dict(choices.categorical)
    categories = [n for n in used if n in declared or is_text([table.columns[n] for table in tables])]
    schema = Schema(
        choices,
        tuple(sorted(set(used) - set(categories))),
        tuple(sorted(categories)),
        _classes_of(choices, tables),
    )
    LOG.info(
        "columns: numbers: %s; categories: %s",
        ", ".join(schema.numbers) or "none",
        ", ".join(f"{name} ({schema.places_text(name)})" for name in schema.categories) or "none",
    )
    return schema


def schema_from(choices: Choices, array_names: Sequence[str]) -> Schema:
    """Returns the schema that the names of a model's arrays tell."""

    def named(prefix: str) -> tuple[str, ...]:
        return tuple(sorted(name.removeprefix(prefix) for name in array_names if name.startswith(prefix)))

    classes = named(CLASS)
    return Schema(choices, named(NUMBER), named(CATEGORY), _in_order(choices, classes))


def difference(run: Schema, here: Schema) -> str | None:
    """Returns how the columns ``here`` differ from those of the run, in one sentence; None if they do not."""
    hint = f"--task-option columns={','.join(run.columns)}"
    for name in run.columns:
        if name not in here.columns:
            return f"row 1: column {name!r} is missing; the run has: {', '.join(run.columns)}"
    for name in here.columns:
        if name not in run.columns:
            return (
                f"row 1: column {name!r} is not in the run, which has: {', '.join(run.columns)} (or {hint})"
            )
    for name in run.columns:
        if (name in run.categories) != (name in here.categories):
            kinds = ("text", "numbers") if name in here.categories else ("numbers", "text")
            return (
                f"column {name!r} has {kinds[0]}, but in the run {kinds[1]} "
                f"(text everywhere: --task-option categorical={name})"
            )
    if run.classes != here.classes:
        target = here.choices.target
        if not (run.classes and here.classes):
            kinds = ("classes", "a number") if here.classes else ("a number", "classes")
            return f"the target {target!r} is {kinds[0]}, but in the run {kinds[1]} (--task-option kind=…)"
        unknown, lacking = (
            sorted(set(a) - set(b)) for a, b in ((here.classes, run.classes), (run.classes, here.classes))
        )
        problem = f"{unknown[0]!r} is unknown to the run" if unknown else f"{lacking[0]!r} does not occur"
        every = ",".join(sorted({*run.classes, *here.classes}))
        return f"column {target!r}: the class {problem} (--task-option classes={every})"
    return None


def _check_named(choices: Choices, table: Table) -> None:
    has = f"the file has: {', '.join(table.columns)}"
    if choices.target not in table.columns:
        raise DataMismatchError(f"{table.path}: row 1: column {choices.target!r} (target) is missing; {has}")
    for option, names in (
        ("columns", choices.columns),
        ("categorical", tuple(name for name, _ in choices.categorical)),
    ):
        for name in names:
            if name not in table.columns:
                raise DataMismatchError(f"{table.path}: row 1: column {name!r} ({option}) is missing; {has}")


def is_text(columns: Sequence[Column]) -> bool:
    """Whether most values of a column are no numbers. ``columns``: those of this name in all tables."""
    texts = numbers = 0
    for column in columns:
        present = column.where(lambda text: not is_missing(text))
        numeric = column.where(lambda text: number_of(text) is not None) & present
        numbers += int(numeric.sum())
        texts += int(present.sum() - numeric.sum())
    return texts > numbers


def _classes_of(choices: Choices, tables: Sequence[Table]) -> tuple[str, ...]:
    """Returns the classes of the target, none for a regression, and says what was found."""
    columns = [table.columns[choices.target] for table in tables]
    values = sorted({text for column in columns for text in column.texts if not is_missing(text)})
    numbers = [number_of(text) for text in values]
    whole = all(number is not None and number.is_integer() for number in numbers)
    if choices.kind == "regression" or (
        choices.kind == "auto"
        and not choices.classes
        and not is_text(columns)
        and not (whole and len(values) <= MAX_AUTO_CLASSES)
    ):
        LOG.info("target %s: a number, so this is a regression (else: kind=classification)", choices.target)
        return ()
    classes = choices.classes or tuple(values)
    where = f"{tables[0].path}: column {choices.target!r}"
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise DataMismatchError(
            f"{where}: has {len(classes)} classes, expected 2 to {MAX_CLASSES} (name them: --task-option classes=A,B)"
        )
    odd = [name for name in classes if len(name) > MAX_CLASS_NAME or not name.isprintable()]
    if odd:
        raise DataMismatchError(
            f"{where}: the class {odd[0][:40]!r}, expected at most {MAX_CLASS_NAME} printable characters"
        )
    LOG.info(
        "target %s: %d classes, so this is a classification (else: kind=regression): %s",
        choices.target,
        len(classes),
        ", ".join(classes)[:200],
    )
    return _in_order(choices, classes)


def _in_order(choices: Choices, classes: tuple[str, ...]) -> tuple[str, ...]:
    return choices.classes if sorted(choices.classes) == sorted(classes) else tuple(sorted(classes))
