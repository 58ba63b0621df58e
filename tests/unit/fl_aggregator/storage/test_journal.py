"""The journal gives the state back (docs/adr/0001)."""

from __future__ import annotations

from pathlib import Path

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Finished
from fl_aggregator.round.state import Run
from fl_aggregator.server.resume import replay_journal
from fl_aggregator.storage.journal import FILE_NAME, Journal, read_entries
from fl_aggregator.storage.run_directory import new_record
from tests.support.round_playbook import Playbook, round_done, training


def recorded(playbook: Playbook) -> list[do.Record]:
    return [effect for _, effects in playbook.told for effect in effects if isinstance(effect, do.Record)]


def written(playbook: Playbook, directory: Path) -> None:
    journal = Journal(directory)
    for record in recorded(playbook):
        journal.append(record.event)
    journal.close()


def replayed(settings: Settings, directory: Path) -> Run:
    return replay_journal(directory, new_record(settings)).state


def test_replaying_a_whole_run_gives_its_state(tmp_path: Path) -> None:
    playbook = training(clients=3, per_round=2, rounds=2, evaluator=True, holdout=0.0)
    round_done(playbook)
    round_done(playbook)
    playbook.play("evaluate e 1 0.5", "evaluate e 2 0.75")
    assert isinstance(playbook.state.phase, Finished)
    written(playbook, tmp_path)
    assert list(read_entries(tmp_path, Settings())) == [record.event for record in recorded(playbook)]
    assert replayed(playbook.state.settings, tmp_path) == playbook.state


def test_replaying_an_open_round_gives_what_is_in_and_who_was_called(tmp_path: Path) -> None:
    playbook = training(clients=3, per_round=2)
    a, b = playbook.cohort
    playbook.play(f"send {a}", f"fail {b}")
    written(playbook, tmp_path)
    again = replayed(playbook.state.settings, tmp_path)
    assert again == playbook.state
    assert again.phase == playbook.collecting


def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    playbook = training(clients=2, per_round=2)
    written(playbook, tmp_path)
    whole = (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(whole[:-10])
    assert list(read_entries(tmp_path, Settings())) == [record.event for record in recorded(playbook)][:-1]
