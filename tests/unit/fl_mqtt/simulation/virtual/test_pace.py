"""``--pace auto`` in virtual time: rounds of a fleet of which some edges are much slower."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.phases import Finished
from fl_mqtt.simulation.virtual.devices import Device
from fl_mqtt.simulation.virtual.network import Link
from tests.support.virtual_federation import VALUES, Federation

LINK = Link(0.05, 1.25e6, 1.25e6)
SLOW = Device(5.0, LINK)
FAST = Device(500.0, LINK)
"""They take 2 s for the 1,000 examples of a training, slow ones 200 s."""


def federation(path: Path, pace: str) -> Federation:
    settings = Settings(
        task=f"synthetic-{VALUES}", clients=10, per_round=5, rounds=12, holdout=0.0, grace=0.0, deadline=600.0,
        pace=pace,
    )  # fmt: skip
    return Federation(path, settings, device=lambda name: SLOW if name == "3" else FAST)


def test_rounds_stop_waiting_for_the_slow_edge_and_a_resume_goes_on_with_what_they_took(
    tmp_path: Path,
) -> None:
    with closing(federation(tmp_path / "fixed", "fixed")) as fixed:
        fixed.run()
        whole = sum(line["seconds"]["collecting"] for line in fixed.history())
    with closing(federation(tmp_path / "auto", "auto:quantile=0.75,window=3")) as paced:
        for _ in range(12):
            paced.run(60)
            if paced.aggregator.state.ended:
                break
            paced.restart_aggregator()  # compares the state with the one that the journal gives
        paced.run()
        assert isinstance(paced.aggregator.state.phase, Finished)
        lines = list(paced.history())
    deadlines = [line["metrics"]["pace_deadline"] for line in lines]
    assert deadlines[0] == 600
    assert all(5 <= one <= 600 for one in deadlines)
    assert min(deadlines) < 10
    assert all(line["seconds"]["collecting"] <= line["metrics"]["pace_deadline"] + 1e-6 for line in lines)
    assert sum(line["seconds"]["collecting"] for line in lines) < whole / 2
