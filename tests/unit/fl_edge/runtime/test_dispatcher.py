"""What a worker finds out reaches the session, and from there the aggregator."""

from __future__ import annotations

from fl_edge.runtime.dispatcher import JobOwner, _event
from fl_edge.session import events
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
