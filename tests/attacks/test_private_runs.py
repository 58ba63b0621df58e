"""What is tried on a run with differential privacy: by its data, by its files, and by its options."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_aggregator.aggregation.strategies.registry import resolved
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.privacy.adaptive_clip import ROOM, next_clip
from fl_aggregator.round import effects as do
from fl_aggregator.round.privacy import spent_by
from fl_aggregator.round.snapshot import Snapshot
from fl_aggregator.server import launch
from fl_aggregator.storage.journal import snapshot_line
from fl_shared.errors import UserError
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from tests.support.masked_federation import MaskedFederation
from tests.support.simulated_masked_edge import PARAMETERS_ONLY

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


@pytest.mark.parametrize(
    "changes",
    [
        {"dp_clip": "adaptive:4", "dp_accuracy": True, "holdout": 0.2},
        {"dp_bands": "2", "dp_apart": "2", "per_round": 2, "quorum": 2},
        {"dp": "distributed", "dp_noise": 20.0},
    ],
)
def test_d8_a_snapshot_of_the_journal_has_all_that_was_spent(tmp_path: Path, changes: dict[str, Any]) -> None:
    given = {**PRIVATE, **changes}
    run = MaskedFederation(
        tmp_path / "run", masked=given["dp"] == "distributed", manifest=PARAMETERS_ONLY, **given
    )
    state = run.run()
    fields = json.loads(snapshot_line(Snapshot(state)))["snapshot"]
    again = Snapshot.from_fields(fields, state.settings).state
    assert again.releases == state.releases
    plan = again.settings.privacy
    assert plan is not None
    assert spent_by(plan, again.releases) == spent_by(state.settings.privacy, state.releases)
    assert state.releases.made == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dp_noise": 1e-320}, "dp_noise"),
        ({"dp_noise": 1e-200, "dp_clip": "adaptive"}, "dp_noise"),
        ({"dp_noise": 1e-200, "dp_accuracy": True}, "dp_noise"),
        (
            {"dp_noise": 1e-9, "dp_clip": "adaptive:1e-6"},
            "--fold-bits: 64 leave the noise a standard deviation of",
        ),
        (
            {"dp_noise": None, "dp_epsilon": 1e-10, "dp_accuracy": True, "rounds": 10_000},
            "--dp-accuracy: with --dp-no",
        ),
        (
            {"dp_noise": None, "dp_epsilon": 1e-10, "dp_clip": "adaptive", "rounds": 10_000},
            "--dp-clip: with --dp-noise",
        ),
        ({"dp_bands": "10000", "rounds": 10_000}, "dp_bands: 10000, expected at most 32"),
        (
            {"dp_against": "models", "dp_noise": 0.01},
            "dp_noise: 0.01, expected at least 0.2 with --dp-against models",
        ),
        ({"dp_against": "models", "dp_delta": 1e-300}, "dp_delta: 1e-300, expected 1e-12 to 0.1 with"),
        ({"dp_against": "models", "dp_delta": 0.99}, "dp_delta: 0.99, expected 1e-12 to 0.1 with"),
        ({"dp_ledger": "/"}, "--dp-ledger /: is a directory, expected a file"),
    ],
)
def test_huge_and_tiny_values_are_refused_at_the_start(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    given = {**PRIVATE, "holdout": 0.2, "clients": 5, "dp_bands": "1", **changes}
    with pytest.raises((UserError, ValueError)) as refused:
        launch.new(Settings.model_validate(given), tmp_path / "run").close()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("clip", "noise"), [("1e-6", 1e-9), ("1e-6", 1e4), ("1e6", 1e-9), ("1e6", 1e4), ("adaptive:1e6", 1e4)]
)
def test_a_run_with_the_smallest_and_the_largest_values_makes_its_versions(
    tmp_path: Path, clip: str, noise: float
) -> None:
    state = federation(tmp_path / "run", rounds=2, dp_clip=clip, dp_noise=noise).run()
    assert state.version == 2


def test_the_grid_of_a_sum_is_one_that_a_message_may_name() -> None:
    given = {**PRIVATE, "clients": 5, "dp_clip": "1e-6", "dp_noise": 1e-9}
    assert resolved(Settings.model_validate(given)).scale_bits == 62


def test_a_clip_stays_within_its_room_however_large_the_noise_of_the_share_is() -> None:
    assert next_clip(1.0, 1.0, -1e6, 100, 20) == ROOM
    assert next_clip(1.0, 1.0, 1e6, 100, 40) == 1 / ROOM
