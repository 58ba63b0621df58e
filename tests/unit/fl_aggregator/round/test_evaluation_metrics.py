"""The metrics of a version, from the reports of its evaluation; `docs/protocol.md`, 5.11."""

from __future__ import annotations

import pytest

from fl_aggregator.round import events as on
from fl_aggregator.round.effects import PublishResult
from fl_shared.protocol.messages import MAX_METRICS
from tests.support.round_playbook import Playbook, round_done, training
from tests.support.versions import digest_of


def report(playbook: Playbook, client: str, examples: int, **metrics: float) -> on.Evaluated:
    return on.Evaluated(
        now=playbook.now, client=client, session=playbook.session(client), version=1, digest=digest_of(1),
        split="test", examples=examples, loss=0.5, accuracy=0.75, metrics=metrics,
    )  # fmt: skip


def result_metrics(playbook: Playbook) -> dict[str, float]:
    """Those in the last result."""
    results = [e for _, effects in playbook.told for e in effects if isinstance(e, PublishResult)]
    return dict(results[-1].summary.metrics)


def test_a_tasks_own_metrics_are_averaged_over_the_edges_that_report_them() -> None:
    playbook = Playbook(clients=1, per_round=1)
    playbook.play("start", "join e roles=evaluate", "join f roles=evaluate", "join 0", "load 0", "send 0")
    round_done(playbook)
    playbook.play(
        report(playbook, "e", 10, auc=0.5, f1=0.25), report(playbook, "f", 30, auc=0.9, accuracy=9.0)
    )
    found = result_metrics(playbook)
    assert found["auc"] == pytest.approx(0.8)
    assert found["f1"] == 0.25
    assert found["accuracy"] == 0.75, "a task does not replace ours"
    assert "auc" not in playbook.state.metrics, "a status has no space for them"


def test_a_result_has_space_for_so_many_metrics() -> None:
    playbook = Playbook(clients=1, per_round=1)
    playbook.play("start", "join e roles=evaluate", "join 0", "load 0", "send 0")
    round_done(playbook)
    playbook.play(report(playbook, "e", 10, **{f"m{n:02}": 0.5 for n in range(64)}))
    assert len(result_metrics(playbook)) == MAX_METRICS


def test_several_reports_are_averaged_by_examples_whatever_their_order() -> None:
    for order in (("e", "f"), ("f", "e")):
        playbook = Playbook(clients=1, per_round=1)
        playbook.play("start", "join e roles=evaluate", "join f roles=evaluate", "join 0", "load 0", "send 0")
        round_done(playbook)
        reports = {"e": "evaluate e 1 0.5 examples=10 loss=1", "f": "evaluate f 1 0.9 examples=30 loss=3"}
        playbook.play(*(reports[client] for client in order))
        assert playbook.state.metrics["accuracy"] == pytest.approx(0.8)
        assert playbook.state.metrics["loss"] == pytest.approx(2.5)
        assert playbook.state.metrics["evaluated_examples"] == 40


def test_losses_too_large_for_a_float_are_left_out() -> None:
    """A diverged model must not bring the run down: no message can carry an infinity."""
    playbook = training(clients=1, per_round=1, evaluator=True)
    round_done(playbook)
    playbook.play("evaluate e 1 0.1 loss=1e308 examples=100")
    assert playbook.state.metrics == {"version": 1, "accuracy": pytest.approx(0.1), "evaluated_examples": 100}
