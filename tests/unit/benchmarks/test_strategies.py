"""What combinations cost is within the aims."""

from __future__ import annotations

import measured_lines
import strategies

FOUND = measured_lines.read_lines(measured_lines.path_of("strategies"))[-1]


def test_two_hundred_updates_of_a_million_values_cost_little() -> None:
    """What was measured, of the issue's aims: 5 CPU seconds, 100 MB. A table with more must say so."""
    assert list(FOUND["strategies"]) == list(strategies.STRATEGIES)
    assert (FOUND["updates"], FOUND["values"]) == (200, 1_000_000)
    for name, row in FOUND["strategies"].items():
        assert row["cpu_seconds"] <= 5, name
        assert row["anonymous_mb"] <= 100, name
