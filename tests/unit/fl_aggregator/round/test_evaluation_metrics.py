"""The metrics of a version, from the reports of its evaluation; `docs/protocol.md`, 5.11."""

from __future__ import annotations

from typing import Any

import pytest

from fl_aggregator.round import events as on
from fl_aggregator.round.effects import PublishResult, StoreBest
from fl_shared.protocol.messages import MAX_DECLARED_METRICS, MAX_METRICS, MetricDeclaration
from tests.support.builders import MAE
from tests.support.round_playbook import Playbook, round_done, training
from tests.support.round_text import describe_phase
from tests.support.versions import digest_of

AUC = MetricDeclaration(name="auc", minimum=0.0, maximum=1.0)
MANY = tuple(MetricDeclaration(name=f"m{number:02}") for number in range(MAX_DECLARED_METRICS))


def report(
    playbook: Playbook, client: str, examples: int, loss: float = 0.5, /, **metrics: float
) -> on.Evaluated:
    return on.Evaluated(
        now=playbook.now, client=client, session=playbook.session(client), version=1, digest=digest_of(1),
        split="test", examples=examples, loss=loss, metrics=metrics,
    )  # fmt: skip


def evaluating(*declared: MetricDeclaration, **settings: Any) -> Playbook:
    """Version 1 is being evaluated by the edges ``e`` and ``f``."""
    playbook = Playbook(clients=1, per_round=1, declared=declared, **settings)
    playbook.play("start", "join e roles=evaluate", "join f roles=evaluate", "join 0", "load 0", "send 0")
    return round_done(playbook)


def result_metrics(playbook: Playbook) -> dict[str, float]:
    """Those in the last result."""
    results = [e for _, effects in playbook.told for e in effects if isinstance(e, PublishResult)]
    return dict(results[-1].summary.metrics)


def test_metrics_are_averaged_over_the_edges_that_report_them() -> None:
    playbook = evaluating(AUC, MetricDeclaration(name="f1"))
    playbook.play(report(playbook, "e", 10, auc=0.5, f1=0.25), report(playbook, "f", 30, auc=0.9))
    found = result_metrics(playbook)
    assert found["auc"] == pytest.approx(0.8)
    assert found["f1"] == 0.25
    assert playbook.state.split == "test"


def test_what_is_not_declared_or_not_possible_is_left_out() -> None:
    """An edge may have another version of the task, or lie."""
    playbook = evaluating(AUC)
    playbook.play(report(playbook, "e", 10, auc=7.0, mae=1.0), report(playbook, "f", 30, auc=0.9))
    assert playbook.state.metrics == {"version": 1, "auc": 0.9, "loss": 0.5, "evaluated_examples": 40}
    assert playbook.state.best == 0.9


def test_a_version_whose_primary_metric_nobody_could_measure_is_not_the_best() -> None:
    playbook = evaluating(AUC, target="auc=0.5")
    playbook.play(report(playbook, "e", 10), report(playbook, "f", 30))
    assert playbook.state.best is None
    assert not playbook.state.target_reached
    assert playbook.state.metrics == {"version": 1, "loss": 0.5, "evaluated_examples": 40}


def test_a_result_has_space_for_all_metrics() -> None:
    playbook = Playbook(clients=1, per_round=1, declared=MANY)
    playbook.play("start", "join e roles=evaluate", "join 0", "load 0")
    values = {metric.name: 0.5 for metric in MANY}
    groups = " ".join(
        f"{group}.{name}=0.5" for group in ("before", "after") for name in [*values, "loss", "examples"]
    )
    playbook.play("send 0", f"send 0 round=1 {groups} train.loss=1")
    playbook.play(report(playbook, "e", 10, **values))
    assert len(result_metrics(playbook)) == 34 + 34 + 1 + 3 + 34 <= MAX_METRICS


def test_the_best_version_has_the_lowest_error_and_ties_never_replace_it() -> None:
    playbook = Playbook(clients=1, per_round=1, rounds=4, declared=(MAE,))
    playbook.play("start", "join e roles=evaluate", "join 0", "load 0", "send 0")
    round_done(playbook)
    for version, error in enumerate((3.0, 2.0, 2.0, 5.0), start=1):
        if version > 1:
            playbook.play("send 0")
        playbook.play(f"evaluate e {version} {error}")
    stored = [e.model.version for _, effects in playbook.told for e in effects if isinstance(e, StoreBest)]
    assert stored == [1, 2]
    assert playbook.state.best == 2.0


def test_without_metrics_the_loss_is_the_primary_one() -> None:
    playbook = evaluating()
    playbook.play(report(playbook, "e", 10, 0.25), report(playbook, "f", 10, 0.75))
    assert playbook.state.best == 0.5
    assert playbook.state.primary.name == "loss"


@pytest.mark.parametrize(
    ("target", "value", "loss", "reached"),
    [
        ("mae=2", 2.0, 9.0, True),
        ("mae=2", 2.1, 0.0, False),
        ("r2=-0.5", -0.5, 9.0, True),
        ("r2=-0.5", -0.6, 0.0, False),
        ("loss=0.2", 9.0, 0.2, True),
        ("loss=0.2", 0.0, 0.21, False),
    ],
)
def test_a_target_has_the_direction_of_its_metric(
    target: str, value: float, loss: float, reached: bool
) -> None:
    playbook = evaluating(MAE, MetricDeclaration(name="r2"), target=target, rounds=9)
    name = target.partition("=")[0]
    playbook.play(
        *(report(playbook, edge, 10, loss, **{name: value} if name != "loss" else {}) for edge in "ef")
    )
    assert playbook.state.target_reached == reached


def test_a_target_that_the_task_does_not_have_fails_the_run_at_once() -> None:
    playbook = Playbook(clients=2, per_round=1, declared=(MAE,), target="accuracy=0.9")
    playbook.play("start", "join 0", "load 0")
    assert describe_phase(playbook.state) == (
        "failed unknown-target --target: the task 'digits' has no metric 'accuracy'; it has: loss, mae"
    )


def test_the_first_edge_that_declares_metrics_fixes_them() -> None:
    playbook = Playbook(clients=2, per_round=1, declared=(MAE,))
    playbook.play("start", "join 0", "join 1", "load 0")
    playbook.declared = (AUC,)
    playbook.play("load 1")
    assert playbook.state.declared == (MAE,)
    assert set(playbook.cohort) <= {"0", "1"}, "both are admitted"


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
