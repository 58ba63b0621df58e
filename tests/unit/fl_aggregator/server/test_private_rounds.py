"""A run with differential privacy: what it tells, what it spends, and an aggregator that is killed anywhere."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Finished
from fl_aggregator.server.launch import new
from fl_aggregator.storage.checkpoint import Checkpoints
from fl_shared.errors import RunFailed, UserError
from fl_shared.privacy.gaussian_noise import noise
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from tests.support.masked_federation import MaskedFederation, digests_of
from tests.support.private_federation import CLIP, PRIVATE, RARELY, keys_on_disk, private_federation
from tests.support.round_playbook import Playbook
from tests.support.round_text import describe_phase


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"dp_bands": "1"}, marks=pytest.mark.long),
        {"dp_bands": "2"},
        pytest.param({"dp_clip": "adaptive:4", "dp_accuracy": True, "holdout": 0.2}, marks=pytest.mark.long),
    ],
)
def test_killed_before_any_kind_of_effect_it_makes_the_same_models(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    def again(name: str) -> MaskedFederation:
        return private_federation(tmp_path / name, **RARELY, dp_insecure_seed=3, rounds=3, **changes)

    undisturbed = again("undisturbed")
    expected = digests_of(undisturbed.run(), undisturbed)
    assert len(undisturbed.state.settings.privacy.coefficients) == int(changes.get("dp_bands", 1))
    kinds = {type(effect): place for place, effect in enumerate(undisturbed.effects)}
    for place in sorted({kinds[kind] - before for kind in kinds for before in (0, 1)} - {-1}):
        killed = again(f"killed-{place}")
        killed.kill_at = place
        state = killed.run()
        assert killed.kills == 1
        assert state.model.digest == expected[-1], undisturbed.effects[place]
        assert state.releases == undisturbed.state.releases


def test_an_adaptive_clip_follows_the_norms_of_the_updates(tmp_path: Path) -> None:
    run = private_federation(tmp_path / "run", dp_clip="adaptive:4", dp_noise=0.5, rounds=8)
    used: dict[int, bytes] = {}

    def watch(effect: do.Effect) -> None:
        if isinstance(effect, do.PublishModel) and effect.model.version:
            used[effect.model.version] = bytes.fromhex(keys_on_disk(run)[str(effect.model.version)])

    run.before_effect = watch
    state = run.run()
    clips, plan = [4.0], state.settings.privacy
    for number in range(1, 9):
        within = sum(
            np.linalg.norm(edge.delta(number).astype(float)) <= clips[-1] for edge in run.edges.values()
        )
        key = hashlib.sha256(b"fl-mqtt mean\0within clip\0" + used[number]).digest()
        added = noise([(key, plan.mean_deviation * 2.0**16)], 0, 1)[0] / 2.0**16
        share = 0.5 + (within - 5 / 2 + added) / 5
        clips.append(min(max(clips[-1] * np.exp(-0.2 * (share - 0.5)), 4 / 256), 4 * 256))
    assert len(set(clips)) == 9
    said = {
        one.round: one.privacy.clip for _, one in run.published if isinstance(one, m.Selected) and one.privacy
    }
    assert [said[number] for number in range(1, 9)] == pytest.approx(clips[:8], rel=1e-12)
    results = {
        one.round: one.privacy.clip for _, one in run.published if isinstance(one, m.Result) and one.privacy
    }
    assert [results[number] for number in range(1, 9)] == [said[number] for number in range(1, 9)]
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [one["privacy"]["clip"] for one in history] == [said[number] for number in range(1, 9)]
    assert {one["strategy"] for one in history} == {None}, (
        "how many were clipped, and how long the change was"
    )
    assert state.releases.clip == pytest.approx(clips[8], rel=1e-12)
    assert {one["privacy"]["noise"] for one in history} == {0.5}, (
        "that of the model and of the share together"
    )


def test_11_6_the_accuracies_of_the_base_become_a_noisy_mean(tmp_path: Path) -> None:
    run = private_federation(tmp_path / "run", dp_accuracy=True, holdout=0.2, dp_insecure_seed=7, rounds=3)
    accuracies = {}
    for place, (name, edge) in enumerate(run.edges.items()):
        accuracies[name] = 0.03125 + place / 7

        def discreetly(message: m.Message, accuracy: float = accuracies[name]) -> m.Message:
            if not isinstance(message, m.Update) or message.base is None:
                return message
            metrics = m.UpdateMetrics(before={"accuracy": accuracy})
            return message.model_copy(update={"metrics": metrics, "seconds": 0.0, "examples": 1, "steps": 0})

        edge.tamper = discreetly
    state = run.run()
    assert {
        one.privacy.accuracy for _, one in run.published if isinstance(one, m.Selected) and one.privacy
    } == {True}
    plan = state.settings.privacy
    error = plan.mean_deviation / 5
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    for number in (1, 2):
        release_key = hashlib.sha256(f"fl-mqtt insecure noise\0007\0{number + 1}".encode()).digest()
        key = hashlib.sha256(b"fl-mqtt mean\0accuracy\0" + release_key).digest()
        added = noise([(key, plan.mean_deviation * 2.0**16)], 0, 1)[0] / 2.0**16
        expected = sum(accuracies.values()) / 5 + added / 5
        assert history[number - 1]["metrics"] == {
            "accuracy": pytest.approx(expected, abs=1e-6), "standard_error": pytest.approx(error)
        }  # fmt: skip
        assert history[number - 1]["split"] == "holdout"
    assert history[2]["metrics"] == {}, "no round comes after the last version"
    assert not any(isinstance(effect, do.StoreBest) for effect in run.effects)
    for _, message in run.published:
        content = codec.encode(message).decode(errors="replace")
        assert not any(str(accuracy) in content for accuracy in accuracies.values()), message


def test_an_accuracy_that_is_impossible_or_not_there_counts_as_half(tmp_path: Path) -> None:
    run = private_federation(tmp_path / "run", dp_accuracy=True, holdout=0.2, rounds=1)
    for name, value in (("0", 2.0), ("1", -1.0), ("2", None), ("3", 1.0), ("4", 0.25)):
        before = {} if value is None else {"accuracy": value}

        def say(message: m.Message, before: dict[str, float] = before) -> m.Message:
            change = {"metrics": m.UpdateMetrics(before=before)}
            return message.model_copy(update=change) if isinstance(message, m.Update) else message

        run.edges[name].tamper = say
    run.run()
    averages = [effect for effect in run.effects if isinstance(effect, do.Average) and effect.version]
    assert [one.accuracies for one in averages] == [(0.5 - 0.25) * 2**16]


def test_a_metric_that_has_no_bounds_cannot_be_told_with_noise() -> None:
    unbounded = m.MetricDeclaration(name="mae", higher_is_better=False, minimum=0.0)
    private = {**PRIVATE, "dp_accuracy": True}
    playbook = Playbook(clients=2, per_round=1, declared=(unbounded,), **private)
    playbook.play("start", "join 0", "load 0")
    assert describe_phase(playbook.state) == (
        "failed unbounded-metric --dp-accuracy: 'mae' of the task 'digits' is at least 0; expected a metric from 0 to 1"
    )
    assert playbook.state.failed_by_user


def test_the_messages_have_no_number_of_one_edge(tmp_path: Path) -> None:
    run = private_federation(tmp_path / "run", rounds=2, holdout=0.2)

    def publish_status(effect: do.Effect) -> None:
        if isinstance(effect, do.PublishResult):
            publisher = run.runner.interpreter.status_publisher
            publisher.publish_status(run.state, run.now, None, run.rejections, force=True)

    run.before_effect = publish_status
    run.run()
    states = [message for _, message in run.published if isinstance(message, m.Edges)]
    assert states
    assert {edge.examples for one in states for edge in one.edges.values()} == {None}
    results = [message for _, message in run.published if isinstance(message, m.Result)]
    assert not any(one.worst_edges or one.metrics or one.examples for one in results)
    admitted = [message for _, message in run.published if isinstance(message, m.Admitted)]
    assert all(one.private for one in admitted)
    asked = [message for _, message in run.published if isinstance(message, m.ModelAnnouncement)]
    assert asked
    assert not any(one.evaluate for one in asked), "edges would evaluate on their holdouts"


def test_what_is_said_of_it_is_the_same_everywhere_and_never_falls(tmp_path: Path) -> None:
    run = private_federation(tmp_path / "run", rounds=3, dp_epsilon=50.0)
    state = run.run()
    results = {one.round: one.privacy for _, one in run.published if isinstance(one, m.Result)}
    results.pop(0)
    said = [one.epsilon for _, one in sorted(results.items()) if one is not None]
    assert said == sorted(said)
    assert len(said) == 3
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [one["privacy"]["epsilon"] for one in history] == said
    written = [e.summary.privacy for e in run.effects if isinstance(e, do.WriteHistory)]
    assert [one.epsilon for one in written if one is not None] == said
    selected = [one for _, one in run.published if isinstance(one, m.Selected)]
    assert {one.privacy is None for one in selected if one.base is None} == {True}
    assert {one.privacy for one in selected if one.base is not None} == {
        m.RoundPrivacy(mechanism="central", clip=CLIP, noise=2.0)
    }
    assert state.releases.made == 3


def test_a_run_ends_well_when_the_budget_is_spent(tmp_path: Path) -> None:
    run = private_federation(tmp_path / "run", rounds=10, dp_noise=2.0, dp_epsilon=3.0)
    state = run.run()
    assert isinstance(state.phase, Finished)
    assert state.phase.reason == "privacy-budget"
    assert 1 <= state.version < 10
    last = json.loads((tmp_path / "run" / "history.jsonl").read_text().splitlines()[-1])["privacy"]
    assert last["epsilon"] <= 3.0
    assert all(len(versions) == state.settings.privacy.times for versions in state.releases.taken.values())


def test_an_edge_rests_between_its_contributions(tmp_path: Path) -> None:
    run = private_federation(tmp_path / "run", clients=6, per_round=2, quorum=2, rounds=6, dp_apart="3")
    state = run.run()
    assert state.version == 6
    for versions in state.releases.taken.values():
        assert all(later - earlier >= 3 for earlier, later in itertools.pairwise(versions))


def test_a_private_run_does_not_go_back_to_an_earlier_version(tmp_path: Path) -> None:
    """Else its noise would be added to two sums, and its edges would be charged for one."""
    other, run = (private_federation(tmp_path / name, rounds=3) for name in ("other", "run"))
    other.run()
    run.kill_at = max(place for place, one in enumerate(other.effects) if isinstance(one, do.PublishModel))

    def damage() -> None:
        if (file := Checkpoints(run.directory).version_path(3)).exists():
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)

    run.before_start = damage
    with pytest.raises(RunFailed, match="does not go back to an earlier version"):
        run.run()


def test_a_model_with_buffers_is_refused(tmp_path: Path) -> None:
    run = MaskedFederation(tmp_path / "run", masked=False, **PRIVATE)
    with pytest.raises(UserError, match=r"--dp: the task 'digits' shares 1 buffers \(mean\)"):
        run.run()
    run.end()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dp_clip": None}, "needs --dp-clip"),
        ({"dp_noise": None}, "needs --dp-epsilon"),
        (
            {"dp_noise": 0.5, "dp_epsilon": 0.1},
            r"--dp-noise: 0.5: ε of one release is .*expected --dp-noise of at ",
        ),
        ({"strategy": "median"}, "--dp: does not go with --strategy median"),
        ({"strategy": "scaffold"}, "--dp: does not go with --strategy scaffold"),
        ({"strategy": "fedexp"}, "--dp: does not go with --strategy fedexp"),
        ({"strategy": "fednova", "momentum": 0.9, "epochs": 1}, "--dp: does not go with --strategy fednova"),
        ({"transform": ("clip:norm=1",)}, "--transform"),
        ({"encoding": "q8"}, "--encoding q8"),
        ({"similarity": 1}, "--similarity 1"),
        ({"mode": "async"}, "--mode async"),
        ({"dp_clip": "adaptive", "dp_bands": "2"}, "--dp-bands 2: correlated noise has one scale"),
        ({"target": "accuracy=0.9"}, "--target accuracy=0.9"),
        ({"dp_accuracy": True, "holdout": 0.0}, "dp_accuracy: needs --holdout"),
        (
            {"dp": "distributed", "masked": True, "dp_accuracy": True},
            "dp: distributed does not go with --dp-accuracy: only the aggregator can add",
        ),
        ({"dp": None}, "has a meaning with --dp only"),
        ({"dp": None, "dp_clip": None, "dp_noise": None, "dp_apart": None, "dp_accuracy": True}, "--dp only"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        new(Settings.model_validate({**PRIVATE, "clients": 5, **changes}), tmp_path / "run").close()
