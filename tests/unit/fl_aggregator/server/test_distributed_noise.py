"""A masked run whose edges add the noise: the aggregator sees noisy sums only, wherever it is killed."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Finished
from fl_aggregator.server.launch import new
from fl_aggregator.storage.checkpoint import Checkpoints
from fl_aggregator.storage.noise_keys import FILE_NAME
from fl_shared.errors import UserError
from fl_shared.privacy.gaussian_mechanism import epsilon_of
from fl_shared.protocol import messages as m
from fl_shared.tensors.manifest import Vector
from tests.support.masked_federation import MaskedFederation, digests_of
from tests.support.simulated_masked_edge import PARAMETERS_ONLY

CLIP, NOISE, COLLUDERS = 0.5, 2.0, 1
PRIVATE: dict[str, Any] = {"dp": "distributed", "dp_clip": str(CLIP), "dp_noise": NOISE, "dp_apart": "1"}


def federation(directory: Path, **settings: Any) -> MaskedFederation:
    usual: dict[str, Any] = {"clients": 7, "quorum": 5, "rounds": 2, "deadline": 30.0, **PRIVATE, **settings}
    return MaskedFederation(directory, manifest=PARAMETERS_ONLY, **usual)


def weights(run: MaskedFederation, version: int) -> Vector:
    digest = digests_of(run.state, run)[version]
    assert digest is not None
    return Checkpoints(run.directory).read(version, digest).weights


def results_of(run: MaskedFederation) -> dict[int, m.Result]:
    return {one.round: one for _, one in run.published if isinstance(one, m.Result)}


def included_in(run: MaskedFederation, number: int) -> list[str]:
    found = {
        tuple(sorted(one.included))
        for _, one in run.published
        if isinstance(one, m.Closing) and one.round == number
    }
    assert len(found) == 1
    return list(*found)


def test_the_release_is_the_mean_of_what_the_edges_have_masked_and_nothing_else(tmp_path: Path) -> None:
    """D13 in docs/differential-privacy.md."""
    run = federation(tmp_path)
    run.edges["6"].lost_in[2] = ("update", "sign", "open")
    settings = run.run().settings
    assert settings.fold_width == 32, "the width follows from the noise"
    for number in (1, 2):
        names = included_in(run, number)
        assert len(names) == (7 if number == 1 else 6)
        total = np.sum([run.edges[name].integers[number] for name in names], axis=0)
        change = total / (len(names) * 2.0**settings.scale_bits)
        expected = (weights(run, number - 1) + change).astype(np.float32)
        np.testing.assert_array_equal(weights(run, number), expected)
    assert not (tmp_path / FILE_NAME).exists(), "the aggregator has no keys of noise"


def test_what_is_accounted_is_the_noise_of_each_sum(tmp_path: Path) -> None:
    """D16 in docs/differential-privacy.md."""
    run = federation(tmp_path)
    run.edges["6"].lost_in[2] = ("update",)
    state = run.run()
    least = {number: results_of(run)[number] for number in (1, 2)}
    plans = {one.round: one.masked for _, one in run.published if isinstance(one, m.Selected) and one.masked}
    noises = [
        NOISE * math.sqrt((count - COLLUDERS) / (plans[number].least - COLLUDERS))
        for number, count in ((1, 7), (2, 6))
    ]
    assert state.releases.noises == pytest.approx(noises)
    assert state.releases.taken["6"] == (1,)
    said = {number: result.privacy for number, result in least.items()}
    for number, mu in ((1, 1 / noises[0]), (2, math.hypot(1 / noises[0], 1 / noises[1]))):
        spent = said[number]
        assert spent is not None
        assert spent.mu == pytest.approx(mu)
        assert spent.epsilon == epsilon_of(spent.mu, spent.delta)
        assert spent.noise == pytest.approx(noises[number - 1])
        assert spent.trusted == "all edges of a sum but 1 (at least 4)"
        assert spent.mu < math.sqrt(number) / NOISE, "more edges than the least add noise"


def test_no_message_has_a_number_of_the_edges_nor_their_mean(tmp_path: Path) -> None:
    run = federation(tmp_path, holdout=0.2)
    run.run()
    results = results_of(run)
    assert set(results) == {0, 1, 2}
    assert not any(one.metrics or one.examples or one.worst_edges for one in results.values())
    assert not any(one.evaluate for _, one in run.published if isinstance(one, m.ModelAnnouncement))
    sent = [
        one for edge in run.edges.values() for one in edge.answers if isinstance(one, m.Update) and one.base
    ]
    assert sent
    assert {(one.examples, one.steps, one.seconds) for one in sent} == {(1, 0, 0.0)}
    told = [one.privacy for _, one in run.published if isinstance(one, m.Selected) and one.base]
    assert set(told) == {m.RoundPrivacy(mechanism="distributed", clip=CLIP, noise=NOISE)}


@pytest.mark.parametrize("tallies", [[2.0, *[0.0] * 7], [1.0, 1.0, *[0.0] * 6], [0.0] * 8])
def test_11_5_tallies_that_are_not_a_count_spoil_the_round(tmp_path: Path, tallies: list[float]) -> None:
    """D15 in docs/differential-privacy.md."""
    run = federation(tmp_path)
    run.edges["3"].wrong_tallies[1] = tallies
    state = run.run()
    results = results_of(run)
    assert (results[1].outcome, results[2].outcome) == ("abandoned", "committed")
    assert "the sum is implausible" in (results[1].reason or "")
    assert state.version == 2


@pytest.mark.parametrize("budget", [None, 20.0])
def test_a_sum_that_was_opened_is_charged_also_if_it_becomes_no_version(
    tmp_path: Path, budget: float | None
) -> None:
    """D16 in docs/differential-privacy.md: the aggregator, which is not trusted, has seen it."""
    run = federation(tmp_path, dp_epsilon=budget)
    run.edges["3"].wrong_tallies[1] = [2.0, *[0.0] * 7]
    state = run.run()
    assert isinstance(state.phase, Finished)
    if budget is None:
        assert (state.version, state.phase.reason) == (2, "rounds")
        assert state.releases.taken["0"] == (1, 2, 3)
    else:
        assert (state.version, state.phase.reason) == (1, "privacy-budget"), "two releases were planned"
        assert state.releases.taken["0"] == (1, 2)
    said = {number: one.privacy for number, one in results_of(run).items()}
    assert said[1] is not None
    assert said[2] is not None
    assert (said[1].releases, said[2].releases) == (1, 2)
    assert said[2].mu == pytest.approx(math.sqrt(2) * said[1].mu)


def test_a_sum_that_nobody_could_open_is_not_charged(tmp_path: Path) -> None:
    run = federation(tmp_path, rounds=1)
    for name in ("0", "1", "2", "3"):
        run.edges[name].lost_in[1] = ("sign",)
    state = run.run()
    assert state.version == 1
    assert len(state.releases.noises) == 1
    assert state.releases.taken == dict.fromkeys(run.edges, (1,))


def test_killed_before_any_kind_of_effect_it_has_one_noise_and_one_epsilon(tmp_path: Path) -> None:
    """D14 in docs/differential-privacy.md: what edges send again is what they have sent before."""

    def again(name: str) -> MaskedFederation:
        return federation(tmp_path / name, clients=5, rounds=1)

    undisturbed = again("undisturbed")
    expected = undisturbed.run()
    spent = results_of(undisturbed)[1].privacy
    kinds = {type(effect): place for place, effect in enumerate(undisturbed.effects)}
    before_it_is_recorded = {
        kinds[kind] - 1 for kind in (do.PublishClosing, do.PublishReveal, do.PublishModel)
    }
    for place in sorted({*kinds.values(), *before_it_is_recorded}):
        killed = again(f"killed-{place}")
        killed.kill_at = place
        state = killed.run()
        assert killed.kills == 1
        assert state.model.digest == expected.model.digest, undisturbed.effects[place]
        assert state.releases == expected.releases
        last = results_of(killed).get(1)
        assert last is None or last.privacy == spent


def test_another_try_with_more_shares_makes_the_same_release(tmp_path: Path) -> None:
    undisturbed, again = (federation(tmp_path / name, rounds=1) for name in ("undisturbed", "again"))
    expected = undisturbed.run().model.digest

    def wrong(message: m.Message) -> m.Message:
        if not isinstance(message, m.Opened):
            return message
        shares = bytes(len(message.shares))
        return message.model_copy(update={"shares": shares, "digest": hashlib.sha256(shares).hexdigest()})

    again.edges["2"].tamper = wrong
    state = again.run()
    assert state.model.digest == expected
    assert sum(isinstance(one, do.Average) and one.base is not None for one in again.effects) > 1
    assert len(state.releases.noises) == 1


def test_a_calibrated_run_spends_less_than_its_budget(tmp_path: Path) -> None:
    run = federation(tmp_path, clients=6, dp_noise=None, dp_epsilon=3.0)
    state = run.run()
    assert state.version == 2
    said = results_of(run)[2].privacy
    assert said is not None
    assert said.epsilon < 3.0, "sums of more than the least have more noise than was planned"
    assert state.settings.privacy.planned_epsilon == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masked": False}, "--dp: distributed needs --masked"),
        ({"dp": "central"}, "--dp: central does not go with --masked: the aggregator cannot clip"),
        ({"dp_bands": "2"}, "--dp: distributed does not go with --dp-bands 2: edges keep no noise"),
        ({"dp_clip": "adaptive"}, "--dp: distributed does not go with --dp-clip adaptive: each edge's part"),
        ({"dp_insecure_seed": 1}, "--dp: distributed does not go with --dp-insecure-seed 1: each edge makes"),
        ({"strategy": "median"}, "--masked: does not go with --strategy median"),
        ({"target": "accuracy=0.9"}, "--dp: distributed does not go with --target"),
        (
            {"dp_noise": 1e-7, "fold_bits": "32"},
            r"--fold-bits: 32 leave the noise .*\(--fold-bits, --dp-noise",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message.removeprefix("--")):
        new(
            Settings.model_validate({**PRIVATE, "masked": True, "clients": 7, **changes}), tmp_path / "r"
        ).close()
