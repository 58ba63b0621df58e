"""After the last version, the run waits for the edges' own models; `docs/protocol.md`, 5.18."""

from __future__ import annotations

from typing import Any

import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round import personalization
from fl_aggregator.round.phases import Evaluating, Finished
from fl_aggregator.round.state import PersonalScore, Summary
from tests.support.round_playbook import Playbook, round_done, training
from tests.support.round_text import describe


def last_version(**settings: Any) -> Playbook:
    """The only version is made, and evaluated on the holdouts of both edges."""
    playbook = training(clients=2, per_round=2, **{"rounds": 1, "personalize": 3, **settings})
    round_done(playbook)
    assert isinstance(playbook.state.phase, Evaluating)
    return playbook.play("evaluate 0 1 0.5 split=holdout", "evaluate 1 1 0.7 split=holdout")


def told(playbook: Playbook) -> list[str]:
    return [
        describe(effect).split()[0] for effect in playbook.told[-1][1] if not isinstance(effect, do.Record)
    ]


def written(playbook: Playbook) -> list[Summary]:
    return [e.summary for _, effects in playbook.told for e in effects if isinstance(e, do.WriteHistory)]


def test_edges_are_asked_when_the_last_version_is_evaluated_and_the_run_waits_for_them() -> None:
    playbook = last_version()
    assert told(playbook)[-1] == "personalize"
    assert isinstance(playbook.state.phase, Evaluating)
    assert written(playbook) == [], "the line of the last round has their scores"
    playbook.play("evaluate 0 1 0.9 split=personal before=0.5")
    assert told(playbook) == []
    playbook.play("evaluate 1 1 0.8 split=personal before=0.7")
    assert told(playbook) == ["result", "history", "end"]
    (line,) = written(playbook)
    assert (
        line.personal
        == playbook.state.personal
        == {
            "0": PersonalScore(before=0.5, after=0.9),
            "1": PersonalScore(before=0.7, after=0.8),
        }
    )
    assert line.metrics["accuracy"] == pytest.approx(0.6), "they do not count as an evaluation"
    assert playbook.state.best == pytest.approx(0.6)
    assert not any(playbook.state.personal_missing.values())


def test_a_run_that_is_not_told_to_asks_nobody() -> None:
    playbook = last_version(personalize=0)
    assert isinstance(playbook.state.phase, Finished)
    assert playbook.state.personal is None


def test_they_are_asked_once_after_the_version_that_reaches_the_target() -> None:
    playbook = last_version(rounds=9, target="accuracy=0.55")
    assert told(playbook)[-1] == "personalize"
    playbook.play("evaluate 0 1 0.9 split=personal before=0.5", "evaluate 1 1 0.9 split=personal before=0.7")
    assert isinstance(playbook.state.phase, Finished)
    asked = [e for _, effects in playbook.told for e in effects if isinstance(e, do.Personalize)]
    assert len(asked) == 1


def test_who_leaves_or_hangs_is_not_waited_for_longer_than_the_deadline() -> None:
    playbook = last_version(deadline=50.0, grace=5.0)
    playbook.play("evaluate 0 1 0.9 split=personal before=0.5", "lose 1", "wait 4")
    assert isinstance(playbook.state.phase, Evaluating)
    playbook.play("wait 2")
    assert isinstance(playbook.state.phase, Finished)
    assert list(playbook.state.personal or {}) == ["0"]
    assert playbook.state.personal_missing == {"deadline": 0, "absent": 1, "unmeasured": 0}
    hanging = last_version(deadline=50.0).play("wait 49")
    assert isinstance(hanging.state.phase, Evaluating)
    assert isinstance(hanging.play("wait 2").state.phase, Finished)
    assert hanging.state.personal == {}
    assert hanging.state.personal_missing == {"deadline": 2, "absent": 0, "unmeasured": 0}
    assert len(written(hanging)) == 1


def test_an_edge_without_a_holdout_reports_nothing_and_is_not_waited_for() -> None:
    playbook = last_version().play(
        "evaluate 0 1 split=personal examples=0", "evaluate 1 1 0.9 split=personal before=0.5"
    )
    assert isinstance(playbook.state.phase, Finished)
    assert list(playbook.state.personal or {}) == ["1"]
    assert playbook.state.personal_missing == {"deadline": 0, "absent": 0, "unmeasured": 1}


def test_a_late_report_on_the_version_itself_does_not_end_the_waiting() -> None:
    playbook = last_version().play("evaluate 0 1 0.5 split=holdout")
    assert set(playbook.state.evaluations[0].awaited) == {"0", "1"}


def test_without_edges_the_run_ends() -> None:
    playbook = training(clients=2, per_round=2, rounds=1, personalize=3, grace=0.0)
    round_done(playbook)
    playbook.play("lose 0", "lose 1", "wait 1")
    assert isinstance(playbook.state.phase, Finished)
    assert playbook.state.personal == {}
    assert playbook.state.personal_missing == {"absent": 2}


def test_a_run_that_is_stopped_meanwhile_asks_once_more_when_it_is_resumed() -> None:
    playbook = last_version()
    playbook.play("evaluate 0 1 0.9 split=personal before=0.5")
    playbook.play(on.StopRequested(now=playbook.now, reason="why not"))
    assert len(written(playbook)) == 1
    playbook.play("resume")
    assert personalization.repeated(playbook.state) == (do.Personalize(playbook.state.evaluations[0].model),)
    playbook.play("evaluate 1 1 0.8 split=personal before=0.7")
    assert isinstance(playbook.state.phase, Finished)
    assert list(playbook.state.personal or {}) == ["0", "1"]
