"""What is said at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_aggregator.cli.summary import check_line, personal_line, written_files
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.phases import Evaluating, Failed, Finished, Selecting, Stopped
from fl_aggregator.round.state import PersonalMissing, PersonalScore, Run
from fl_shared.system.frozen import replace
from tests.support.round_playbook import Playbook


def failed(task: str) -> Run:
    state = Playbook(clients=1, per_round=1, task=task).play("start").state
    assert isinstance(state.phase, Selecting)
    failure = Failed(at=1.0, reason="rounds-abandoned", detail="no update", resume_phase=state.phase)
    return replace(state, phase=failure)


def test_rounds_that_fail_with_a_task_of_the_users_own_name_the_command_that_checks_it() -> None:
    assert check_line(failed("evap:Evap")) == "try the task alone: fl-edge check-task evap:Evap"
    assert check_line(failed("digits")) is None
    finished = replace(failed("evap:Evap"), phase=Finished(at=12.0, reason="rounds"))
    assert check_line(finished) is None


def test_the_log_of_a_simulations_edges_is_among_the_files(tmp_path: Path) -> None:
    assert not any("fleet.log" in line for line in written_files(tmp_path, failed("digits")))
    (tmp_path / "fleet.log").write_text("failed")
    (line,) = (line for line in written_files(tmp_path, failed("digits")) if "fleet.log" in line)
    assert line == f"  {tmp_path / 'fleet.log'}  what the edges of a simulation have logged, 6 bytes"


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ({"deadline": 0, "absent": 0, "unmeasured": 0}, ""),
        ({"absent": 4}, "; of 4 edges (--clients) 4 not present"),
        (
            {"deadline": 2, "absent": 1, "unmeasured": 1},
            "; of 4 edges (--clients) 2 did not report within --deadline (60 s), 1 not present, 1 reported no value",
        ),
    ],
)
def test_edges_without_a_personal_model_are_counted_with_the_reason(
    missing: dict[PersonalMissing, int], said: str
) -> None:
    settings = Settings(clients=4, personalize=1, deadline=60)
    run = Run(
        settings=settings, phase=Finished(at=1.0, reason="rounds"), personal={}, personal_missing=missing
    )
    none = f"personal models: no edge has reported what its own is worth{said}"
    assert personal_line(run) == (none if said else None)
    some = replace(run, personal={"0": PersonalScore(before=0.5, after=0.75)})
    line = personal_line(some)
    assert line is not None
    assert line.startswith("personal models: loss 0.5000 → 0.7500 (mean of 1 edges")
    assert line.endswith(f"){said}")


def test_nothing_is_said_of_personal_models_before_edges_are_asked_and_of_who_is_missing_after_a_stop() -> (
    None
):
    run = Run(settings=Settings(clients=4, personalize=1), phase=Finished(at=1.0, reason="rounds"))
    assert personal_line(run) is None
    stopped = Stopped(at=1.0, reason="why not", resume_phase=Evaluating(round=1, since=0.0))
    assert personal_line(replace(run, phase=stopped, personal={}, personal_missing={"absent": 4})) is None
