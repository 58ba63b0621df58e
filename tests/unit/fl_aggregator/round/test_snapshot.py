"""A snapshot has what a resume needs, and no more than that (that it can be written and read: ``check_replay``)."""

from __future__ import annotations

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round.snapshot import RESULTS_RETAINED, Snapshot
from fl_aggregator.round.state import Summary, new_run
from fl_shared.protocol.messages import ModelReference
from tests.support.round_playbook import Playbook, round_done, training


def snapshot_of(playbook: Playbook) -> Snapshot:
    snapshot = Snapshot(playbook.state)
    for event, effects in playbook.told:
        snapshot.add(event.now, playbook.state, effects)
    return snapshot


def result(number: int) -> do.PublishResult:
    model = ModelReference(version=number, digest="d" * 64)
    summary = Summary(
        round=number, outcome="committed", reason=None, model=model, cohort=(), participants=(), missing={},
        examples=0, metrics={}, seconds={},
    )  # fmt: skip
    return do.PublishResult(summary)


def test_what_later_rounds_replace_is_forgotten() -> None:
    playbook = training(clients=2, per_round=2, rounds=20, holdout=0)
    for _ in range(12):
        round_done(playbook)
    snapshot = snapshot_of(playbook)
    assert list(snapshot.models) == [11, 12]
    assert list(snapshot.results) == list(range(5, 13))
    assert {name: update.round for name, update in snapshot.updates.items()} == {"0": 12, "1": 12}


def test_a_late_result_of_a_forgotten_round_is_forgotten_too() -> None:
    snapshot = Snapshot(new_run(Settings()))
    for number in range(1, RESULTS_RETAINED + 3):
        snapshot.add(1.0, snapshot.state, (result(number),))
    kept = dict(snapshot.results)
    snapshot.add(2.0, snapshot.state, (result(2),))
    assert snapshot.results == kept


def test_a_copy_does_not_change_with_its_original() -> None:
    snapshot = Snapshot(new_run(Settings()))
    copy = snapshot.copy()
    snapshot.add(1.0, snapshot.state, (result(1),))
    assert (copy.run_time, copy.results) == (0.0, {})
