"""What is tried on a run with differential privacy: by its data, by its files, and by its options."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.round.privacy import spent_by
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from tests.support.masked_federation import PARAMETERS_ONLY, MaskedFederation

PRIVATE: dict[str, Any] = {
    "dp": "central",
    "dp_clip": "0.5",
    "dp_noise": 2.0,
    "dp_apart": "1",
    "holdout": 0.0,
}


def federation(directory: Path, **settings: Any) -> MaskedFederation:
    return MaskedFederation(directory, masked=False, manifest=PARAMETERS_ONLY, **{**PRIVATE, **settings})


def with_value(run: MaskedFederation, name: str, value: float) -> None:
    """Gives the update of an edge in round 1 a value that depends on its data."""
    edge = run.edges[name]
    usual = edge.delta

    def delta(number: int) -> Any:
        made = usual(number)
        if number == 1:
            made[7] = np.float32(value)
        return made

    edge.delta = delta  # type: ignore[method-assign]


def results(run: MaskedFederation) -> dict[int, m.Result]:
    return {one.round: one for _, one in run.published if isinstance(one, m.Result)}


@pytest.mark.parametrize("value", [123456.75, -3.0e38, 3.4028235e38, 1e-45])
def test_d1_an_update_of_any_length_counts_and_nobody_hears_how_long_it_is(
    tmp_path: Path, value: float
) -> None:
    """Else who is in a version would follow from the edges' data, and the rejection says what these are like."""
    run = federation(tmp_path / "run", rounds=1)
    with_value(run, "3", value)
    run.run()
    assert results(run)[1].participants == tuple(sorted(run.edges))
    for _, message in run.published:
        assert not isinstance(message, m.Rejected)
        text = codec.encode(message).decode(errors="replace")
        assert "magnitude" not in text
        assert f"{abs(value):g}" not in text


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_d9_nobody_hears_which_value_of_an_update_is_not_finite(tmp_path: Path, value: float) -> None:
    run = federation(tmp_path / "run", rounds=1, quorum=4)
    with_value(run, "3", value)
    run.run()
    told = {one.detail for _, one in run.published if isinstance(one, m.Rejected)}
    assert told == {"delta: expected finite numbers"}
    assert results(run)[1].missing == {"3": "rejected: not-finite: delta: expected finite numbers"}


def test_d16_a_sum_is_charged_before_its_members_are_asked_to_open_it(tmp_path: Path) -> None:
    """Also if the aggregator stops then, and the run never goes on: it may have seen the sum."""
    run = MaskedFederation(
        tmp_path / "run", manifest=PARAMETERS_ONLY, **{**PRIVATE, "dp": "distributed", "dp_noise": 20.0}
    )
    run.start()
    for edge in run.edges.values():
        edge.lost_in[1] = ("open",)
    run.deliver()
    asked = [effect for effect in run.effects if isinstance(effect, do.PublishReveal)]
    assert [one.round for one in asked] == [1]
    said = spent_by(run.state.settings.privacy, run.state.releases)
    assert (said.releases, said.epsilon > 0) == (1, True)
    assert run.state.releases.taken.keys() == run.edges.keys()
    statuses = [one for _, one in run.published if isinstance(one, m.Status) and one.phase == "unmasking"]
    assert statuses
    assert {one.privacy.epsilon for one in statuses if one.privacy} == {said.epsilon}
    run.end()
