"""What a run's directory says of where the run was (docs/adr/0001)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fl_aggregator.aggregation.strategies.registry import resolved
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round import machine
from fl_aggregator.round.effects import EFFECT_SPECS
from fl_aggregator.round.machine import step
from fl_aggregator.round.phases import Aggregating, Collecting
from fl_aggregator.round.state import Run
from fl_aggregator.server import launch
from fl_aggregator.server.resume import RecoveredRun, recover, replay_journal
from fl_aggregator.storage.run_directory import HISTORY_FILE, RunDirectory, new_record, read_run
from fl_shared.errors import UserError
from tests.support.recorded_runs import directory_of, rounds_in
from tests.support.round_playbook import Playbook, round_done, training
from tests.support.versions import model_of


def recalled(playbook: Playbook, path: Path) -> RecoveredRun:
    directory = directory_of(playbook, path)
    directory.close()
    return replay_journal(path, read_run(path))


def resumed(state: Run) -> Run:
    return step(state, on.Resumed(now=0.0, incarnation=2))[0]


def test_another_version_of_the_round_machine_does_not_replay_a_journal(tmp_path: Path) -> None:
    directory = directory_of(training(clients=2, per_round=2), tmp_path)
    record = read_run(tmp_path).model_copy(update={"machine": machine.MACHINE_VERSION + 1})
    with pytest.raises(
        UserError,
        match=f"version {machine.MACHINE_VERSION + 1} .* this is version {machine.MACHINE_VERSION}:",
    ):
        recover(directory, record)
    directory.close()


def test_an_open_round_is_announced_again_with_the_two_newest_models(tmp_path: Path) -> None:
    playbook = training(clients=3, per_round=2, rounds=5, holdout=0)
    round_done(playbook)
    round_done(playbook)
    a = playbook.cohort[0]
    playbook.play(f"send {a}", "wait 3")
    found = recalled(playbook, tmp_path)
    assert found.state == playbook.state
    assert found.open_round == playbook.collecting
    assert list(found.snapshot.models) == [1, 2]
    assert list(found.snapshot.results) == [0, 1, 2]
    again = found.effects_to_repeat(resumed(found.state))
    assert isinstance(again[-1], do.AnnounceRound)
    assert again[-1].cohort == playbook.cohort
    assert {type(effect) for effect in again} <= {
        kind for kind, row in EFFECT_SPECS.items() if row.repeated_on_resume
    }


def test_a_round_that_had_closed_is_averaged_again(tmp_path: Path) -> None:
    playbook = training(clients=2, per_round=2, auto=False, holdout=0)
    playbook.play("send 0", "kept 0", "send 1", "kept 1")
    assert isinstance(playbook.state.phase, Aggregating)
    (average,) = [effect for _, effects in playbook.told for effect in effects
                  if isinstance(effect, do.Average) and effect.round == playbook.state.phase.round]  # fmt: skip
    found = recalled(playbook, tmp_path)
    assert found.average == average
    assert average in found.effects_to_repeat(resumed(found.state))
    assert found.open_round == playbook.state.phase.collected


def test_the_best_version_is_stored_again_only_from_a_checkpoint(tmp_path: Path) -> None:
    playbook = training(clients=2, per_round=2, rounds=5, evaluator=True)
    round_done(playbook)
    playbook.play("evaluate e 1 0.5")
    assert recalled(playbook, tmp_path / "killed").snapshot.best is not None, (
        "it may have been killed before it was stored"
    )
    for _ in range(3):
        round_done(playbook)
    directory = directory_of(playbook, tmp_path / "later")
    directory.checkpoints.best_path.touch()
    found = recover(directory, read_run(tmp_path / "later"))
    directory.close()
    assert found.snapshot.best is None, "its checkpoint is gone because later versions have replaced it"


def test_a_stopped_run_is_where_it_was_stopped(tmp_path: Path) -> None:
    playbook = training(clients=2, per_round=2, holdout=0)
    playbook.play("send 0", "interrupt enough")
    found = recalled(playbook, tmp_path)
    assert found.open_round is not None
    assert set(found.open_round.updates) == {"0"}
    assert isinstance(resumed(found.state).phase, Collecting)


def test_a_finished_run_is_not_taken_up(tmp_path: Path) -> None:
    playbook = training(clients=2, per_round=2, rounds=1, holdout=0)
    round_done(playbook)
    directory = directory_of(playbook, tmp_path, lines=False)
    assert recover(directory, read_run(tmp_path)).state == playbook.state, "it has not said yet that it is"
    directory.write_run(read_run(tmp_path).model_copy(update={"ended": "2026-01-01T00:00:00+00:00"}))
    with pytest.raises(UserError, match=r"is finished \(1 of 1 versions\)"):
        recover(directory, read_run(tmp_path))
    directory.close()
    assert rounds_in(tmp_path) == [1], (
        "a line that was still to be written when the aggregator died is there now"
    )


def test_the_history_is_made_what_the_journal_says(tmp_path: Path) -> None:
    playbook = training(clients=2, per_round=2, rounds=5, evaluator=True)
    round_done(playbook)
    playbook.play("evaluate e 1 0.5")
    round_done(playbook)
    playbook.play("interrupt enough")  # writes the line of round 2, which is not evaluated yet
    directory = directory_of(playbook, tmp_path)
    assert rounds_in(tmp_path) == [1, 2]
    with (tmp_path / HISTORY_FILE).open("ab") as file:
        file.write(b'{"round": 3, "outc')
    recover(directory, read_run(tmp_path))
    directory.close()
    assert rounds_in(tmp_path) == [1], "round 2 gets its line once its version has been evaluated"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "run.json: the file: "), ('{"run": "x"}', "run.json: run: "), ("[1]", "run.json: the file: ")],
)
def test_a_damaged_record_is_named(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=expected):
        read_run(tmp_path)


def test_a_directory_without_a_run_is_not_taken_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no run"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="contains no run"):
        RunDirectory(tmp_path, resume=True)
    assert not list(tmp_path.iterdir()), "and nothing is left there"


def test_a_record_says_what_it_was_told(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    record = new_record(Settings(rounds=3, seed=7, durability="power", chunk=2**16))
    directory.write_run(record)
    directory.close()
    assert read_run(tmp_path) == record


def test_a_resumed_run_can_begin_to_require_seals_and_keeps_to_it(tmp_path: Path) -> None:
    launch.new(Settings(), tmp_path / "begun").close()
    assert not list(tmp_path.iterdir()), "no run began"
    first = launch.new(Settings(lr=0.5), tmp_path / "run")
    first.directory.write_run(first.record)
    first.close()
    for asked, required in [(False, False), (True, True), (False, True)]:
        again = launch.resume(tmp_path / "run", simulated=False, require_sealed=asked)
        again.directory.write_run(again.record)
        again.close()
        assert again.record.settings == resolved(Settings(lr=0.5, require_sealed=required))


def test_a_run_does_not_go_on_with_another_algorithm(tmp_path: Path) -> None:
    first = launch.new(Settings(strategy="fedadam", transform=("clip:norm=3",)), tmp_path / "run")
    first.directory.write_run(first.record)
    first.close()
    launch.resume(tmp_path / "run", simulated=False).close()
    record = read_run(tmp_path / "run")
    was = {**record.strategy_parts["server-optimizer"], "lr": 0.5}  # as if the default had been another one
    for parts, said in (
        ({"server-optimizer": was}, r"server-optimizer lr was 0\.5, and is 0\.01: resume it with"),
        ({"transform": []}, r"transform was \[\], and is .*Clip"),
        ({"correct": {"part": "a:B"}}, "correct was .*, and is None"),
    ):
        changed = record.model_copy(update={"strategy_parts": {**record.strategy_parts, **parts}})
        directory = RunDirectory(tmp_path / "run", resume=True)
        directory.write_run(changed)
        directory.close()
        with pytest.raises(UserError, match=f"the parts of its strategy have changed since it began: {said}"):
            launch.resume(tmp_path / "run", simulated=False)


def test_edges_are_asked_for_their_own_models_once_more(tmp_path: Path) -> None:
    playbook = training(clients=2, per_round=2, rounds=1, personalize=3)
    round_done(playbook)
    playbook.play("evaluate 0 1 0.5 split=holdout", "evaluate 1 1 0.7 split=holdout")
    found = replace(recalled(playbook, tmp_path), checkpoints={1: model_of(1)})
    again = [type(effect) for effect in found.effects_to_repeat(resumed(found.state))]
    assert again.index(do.PublishModel) < again.index(do.Personalize), "the second announcement is the last"
