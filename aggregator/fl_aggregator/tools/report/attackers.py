"""Which edges attack a simulation, and how the report marks them."""

from __future__ import annotations

from collections.abc import Callable

from fl_aggregator.tools.report.reading import RunReport


def naming_of(run: RunReport) -> Callable[[str], str]:
    """Returns how edges are called in tables and figures: by their ids, those of attackers with a mark."""
    attackers = frozenset(run.attackers)
    return lambda name: f"{name} (attacks)" if name in attackers else name
