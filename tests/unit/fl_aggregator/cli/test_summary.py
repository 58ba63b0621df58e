"""What is said at the end of a run."""

from __future__ import annotations

from pathlib import Path

from fl_aggregator.cli.summary import check_line, written_files
from fl_aggregator.round.phases import Failed, Finished, Selecting
from fl_aggregator.round.state import Run
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
