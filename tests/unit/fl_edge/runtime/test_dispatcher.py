"""What a worker finds out reaches the session, and from there the aggregator."""

from __future__ import annotations

import pytest

from fl_edge.errors import DataCorruptError, DataMismatchError, TaskOptionsError, UnmaskableError
from fl_edge.runtime.dispatcher import JobOwner, _event
from fl_edge.session import events
from fl_edge.workers.failures import failure_of
from fl_edge.workers.jobs import EvaluateOutcome
from tests.support.session_script import SessionScript, identity
from tests.support.session_steps import sent


def test_a_tasks_own_metrics_are_in_the_evaluation() -> None:
    script = SessionScript(identity(roles=("evaluate",)))
    script.do("connected s1", "admitted", "model 1 evaluate=test", "fetched 0")
    event = _event(JobOwner("7", 0), 0, EvaluateOutcome(10, 0.5, {"auc": 0.875}), script.now)
    assert isinstance(event, events.ModelEvaluated)
    (message,) = sent(script.happen(event))
    assert message.model_dump()["metrics"] == {"auc": 0.875}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataMismatchError("'Mueller'"), "the data do not fit the task, or the task cannot be used here"),
        (DataCorruptError("'Mueller'"), "the data do not fit the task, or the task cannot be used here"),
        (TaskOptionsError("'Mueller'"), "the data do not fit the task, or the task cannot be used here"),
        (UnmaskableError("'Mueller'"), "the update cannot be masked"),
        (ValueError("'Mueller'"), "loading or training failed"),
        (KeyError("'Mueller'"), "loading or training failed"),
    ],
)
def test_p8_what_a_discreet_edge_says_of_a_failure_depends_on_its_kind_alone(
    error: Exception, told: str
) -> None:
    event = _event(JobOwner("7", 0), 0, failure_of(error), 0.0)
    assert isinstance(event, events.JobFailed)
    assert "Mueller" in event.detail
    assert event.told == f"{told}; the edge's log has the reason"
