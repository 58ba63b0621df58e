"""A part of somebody that breaks a rule in a run fails it with one line, which names the part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from fl_aggregator.aggregation.strategies.parts import Contribution
from fl_aggregator.aggregation.strategies.sums import Mean
from fl_aggregator.configuration.settings import Settings
from fl_shared.errors import RunFailed
from tests.support.virtual_federation import VALUES, Federation


@dataclass(frozen=True, slots=True)
class Squares(Mean):
    def weight(self, update: Contribution) -> float:
        return update.examples**2 * 1e9


def test_a_weight_that_the_sum_has_no_room_for(tmp_path: Path) -> None:
    settings = Settings(
        task=f"synthetic-{VALUES}", clients=3, rounds=2, holdout=0.0, combine=f"{__name__}:Squares"
    )
    federation = Federation(tmp_path / "run", settings)
    with pytest.raises(RunFailed, match=r"^Squares\.weight\(\) of the update of edge \d is "):
        federation.run()
    federation.close()
