"""A run whose edges add the noise, with real programs and a real broker: the aggregator sees sums with noise only."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fl_shared.privacy.gaussian_mechanism import epsilon_of
from tests.support import programs

pytestmark = [pytest.mark.broker, pytest.mark.edge]

RUN = ("--task", "synthetic-200", "--clients", "5", "--per-round", "5", "--rounds", "2", "--seed", "7",
       "--dp-apart", "1", "--dp-clip", "0.5", "--dp-noise", "3", "--dp", "distributed", "--masked")  # fmt: skip


def test_edges_add_the_noise(tmp_path: Path) -> None:
    """D13, D16 in docs/differential-privacy.md."""
    with programs.simulate(tmp_path, *RUN) as run:
        run.ends_well()
    lines = programs.history(tmp_path)
    assert [(line["outcome"], line["masked"], line["examples"]) for line in lines] == [
        ("committed", True, 0)
    ] * 2
    squares = 0.0
    for line in lines:
        said = line["privacy"]
        noise = 3 * math.sqrt((len(line["participants"]) - 1) / (5 - 1))
        squares += noise**-2
        assert said["noise"] == pytest.approx(noise)
        assert said["epsilon"] == pytest.approx(epsilon_of(math.sqrt(squares), said["delta"]))
        assert said["trusted"] == "all edges of a sum but 1 (at least 4)"
    settings = json.loads((tmp_path / "run/run.json").read_text())["settings"]
    assert settings["privacy"]["mechanism"] == "distributed"
    assert not (tmp_path / "run/noise.json").exists(), "the aggregator has no keys of noise"
