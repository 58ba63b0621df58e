"""The corrections of an edge, by name. Other distributions add theirs in the group ``fl_mqtt.corrections``."""

from __future__ import annotations

from typing import Final

from fl_edge.errors import UnknownCorrectionError
from fl_edge.training.corrections.correction import Correction
from fl_edge.training.corrections.prox import Prox
from fl_edge.training.corrections.scaffold import Scaffold
from fl_shared.system.entry_points import entry_points

ENTRY_POINT_GROUP: Final = "fl_mqtt.corrections"
_BUILT_IN: Final[dict[str, type[Correction]]] = {"prox": Prox, "scaffold": Scaffold}


def names() -> tuple[str, ...]:
    """Returns the names of all corrections. Imports none of other distributions."""
    others = (point.name for point in entry_points(ENTRY_POINT_GROUP))
    return tuple(sorted({*_BUILT_IN, *others}))


def correction_class(name: str) -> type[Correction]:
    """Returns the class of a correction. Raises ``UnknownCorrectionError``, also if it cannot be imported."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    found = [point for point in entry_points(ENTRY_POINT_GROUP) if point.name == name]
    if not found:
        raise UnknownCorrectionError(
            f"correction {name!r} is unknown here, expected one of: {', '.join(names())}"
        )
    try:
        loaded: type[Correction] = found[0].load()
    except Exception as error:  # a foreign module may raise any error
        raise UnknownCorrectionError(
            f"correction {name!r} ({found[0].value}) cannot be loaded: {error!r}"
        ) from error
    return loaded
