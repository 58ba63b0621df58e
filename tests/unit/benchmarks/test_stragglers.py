"""What documents say of slow and lost edges is what the committed line says."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import measured_lines
import stragglers

ROOT = Path(__file__).parents[3]
FOUND = measured_lines.read_lines(measured_lines.path_of("stragglers"))[-1]["runs"]
SHARES = ("substitutes", "`--over-select 3`", "`--mode async --buffer 5`", "`--mode async --buffer 10`")
"""The columns of the table in ``docs/strategies.md``."""


def test_the_line_has_all_policies() -> None:
    assert set(FOUND) == set(stragglers.PRESETS)
    assert all(set(policies) == set(stragglers.POLICIES) for policies in FOUND.values())


def test_the_shares_of_slow_edges_in_the_page_about_strategies() -> None:
    text = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")

    def share(preset: str, policy: str) -> str:
        slow, weight = (100 * fmean(FOUND[preset][policy][name]) for name in ("slow", "weight"))
        return f"{slow:.0f} % ({weight:.0f} %)" if "async" in policy else f"{slow:.0f} %"

    for preset in stragglers.PRESETS:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{preset}`:"))
        assert row.split(" | ", 1)[1].removesuffix(" |") == " | ".join(share(preset, one) for one in SHARES)
    patient = [share(one, "`--mode async --buffer 5 --max-staleness 100`") for one in stragglers.PRESETS]
    assert f"`--buffer 5` has {patient[0]} and {patient[1]}:" in text
