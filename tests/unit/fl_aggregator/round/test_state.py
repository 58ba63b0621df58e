"""The phases of a run are named once, on their types; the wire and the dashboard have the same names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from fl_aggregator.round.phases import FINAL_PHASE_TYPES, PHASES, ROUND_PHASES
from fl_shared.protocol import messages as m

SCRIPTS = Path(__file__).resolve().parents[4] / "aggregator/fl_aggregator/tools/dashboard/static/js"


def listed(script: str, name: str) -> tuple[str, ...]:
    found = re.search(rf"const {name} = \[(.*?)\];", (SCRIPTS / script).read_text(), re.DOTALL)
    assert found is not None, f"{name} in {script}"
    return tuple(re.findall(r'"([^"]+)"', found[1]))


def test_the_wire_names_every_phase() -> None:
    assert tuple(phase.name for phase in PHASES) == get_args(m.Phase)
    assert tuple(phase.name for phase in FINAL_PHASE_TYPES) == m.FINAL_PHASES


def test_the_dashboard_names_every_phase() -> None:
    assert listed("messages.js", "PHASES") == get_args(m.Phase)
    assert listed("overview.js", "STAGES") == tuple(phase.name for phase in ROUND_PHASES)
