"""Warns of categories from whose values a model can learn little."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np

from fl_edge.data.columns import Schema
from fl_edge.data.tables import Column, Table, is_missing

LOG: Final = logging.getLogger(__name__)

MIN_VALUES: Final = 20
"""With fewer values, a category whose values rarely repeat is not warned of."""


def warn_of_categories(schema: Schema, tables: Sequence[Table]) -> None:
    """Warns of each category whose values rarely repeat, or of which two have the same place."""
    for name in schema.categories:
        columns = [table.columns[name] for table in tables]
        leave_out = f"--task-option ignore={name}"
        if name not in dict(schema.choices.categorical) and any(map(_rarely_repeats, columns)):
            LOG.warning(
                "column %s: is taken as a category, but most of its values occur only once, as those of a time or "
                "a name do: leave it out: %s",
                *(name, leave_out),
            )
            continue
        texts = {t.casefold(): t for column in columns for t in column.texts if not is_missing(t)}
        places: dict[int | None, str] = {}
        for folded, text in sorted(texts.items()):
            if (other := places.setdefault(schema.place(name, folded), text)) != text:
                LOG.warning(
                    "column %s: %r and %r share a bucket of %d: raise buckets, or declare the values: "
                    "--task-option categorical=%s:A|B, or leave the column out: %s",
                    *(name, other, text, schema.choices.buckets, name, leave_out),
                )
                break


def _rarely_repeats(column: Column) -> bool:
    """Whether most values of a column that has some occur only once."""
    counts = np.bincount(column.codes, minlength=len(column.texts))
    present = counts[[not is_missing(text) for text in column.texts]]
    return bool(present.sum() >= MIN_VALUES and (present == 1).sum() > present.sum() / 2)
