"""`replace` for the frozen dataclasses of state machines, of which each event makes several."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import (
        replace as replace,  # type checkers know it, and check the names and types of its arguments
    )
else:

    def replace(instance: Any, /, **changes: Any) -> Any:
        """Returns a copy with other values of some fields, as `dataclasses.replace` does.

        That calls ``__init__``, which sets each field of a frozen dataclass on its own. Here the values are copied as
        they are, ten times as fast for a class of twenty fields. So the class must have no ``__post_init__``. One with
        slots has no dictionary to copy, and takes the slow way. Raises ``TypeError`` for an unknown field.
        """
        values = getattr(instance, "__dict__", None)
        if values is None:
            return dataclasses.replace(instance, **changes)
        copy = object.__new__(type(instance))
        fields = copy.__dict__
        fields.update(values)
        fields.update(changes)
        if len(fields) != len(values):
            unknown = ", ".join(sorted(changes.keys() - values.keys()))
            raise TypeError(f"{type(instance).__name__} has no field {unknown}")
        return copy
