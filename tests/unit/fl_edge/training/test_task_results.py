"""What a task's own code may return, and what it is told about the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from fl_edge.errors import DivergedError, TaskError, UnknownTaskError
from fl_edge.tasks.digits import DigitsTask
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.task import Examples, LocalData, Metric, Scores, TrainReport
from fl_edge.training import task_results
from fl_shared.protocol.messages import Confusion

pytestmark = pytest.mark.edge

TASK = load_task("digits")
TWO = Examples(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
CONFUSION = Confusion(labels=("a",), counts=((3,),))


class Hostile:
    """An object that raises whenever it is used."""

    def __repr__(self) -> str:
        raise RuntimeError

    __mul__ = __index__ = __float__ = lambda *_: 1 / 0


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (None, "train(): None, expected a TrainReport"),
        ((1, 0.5), "train(): a tuple of 2, expected a TrainReport(steps, loss)"),
        (TrainReport(-1, 0.5), "train(): steps: -1, expected a whole number that is not negative"),
        (TrainReport(2**60, 0.5), "steps"),
        (TrainReport(1.5, 0.5), "steps: 1.5"),  # type: ignore[arg-type]
        (TrainReport(None, 0.5), "steps: None"),  # type: ignore[arg-type]
        (TrainReport(torch.zeros(2), 0.5), "steps: a Tensor, expected"),  # type: ignore[arg-type]
        (TrainReport(1, "0.5"), "train(): loss: a str, expected a number"),  # type: ignore[arg-type]
        (TrainReport(1, None), "loss: None"),  # type: ignore[arg-type]
        (TrainReport(1, 1j), "loss: a complex, expected"),  # type: ignore[arg-type]
        (TrainReport(1, torch.zeros(2)), "loss: a Tensor, expected"),  # type: ignore[arg-type]
        (TrainReport(1, Hostile()), "loss: a Hostile"),  # type: ignore[arg-type]
        (Hostile(), "train(): a Hostile"),
    ],
)
def test_a_wrong_report_is_named(report: Any, words: str) -> None:
    with pytest.raises(TaskError) as raised:
        task_results.checked_report(TASK, report)
    assert str(raised.value).startswith("task digits: train()")
    assert words in str(raised.value)


def test_numbers_of_other_libraries_become_pythons() -> None:
    report = task_results.checked_report(TASK, TrainReport(np.int64(3), torch.tensor(0.5)))  # type: ignore[arg-type]
    assert (report.steps, report.loss) == (3, 0.5)
    assert (type(report.steps), type(report.loss)) == (int, float)
    scores = task_results.checked_scores(
        TASK,
        Scores(np.int32(2), np.float32(1), {"accuracy": np.float64(0.5)}),  # type: ignore[arg-type]
    )
    values = (scores.examples, scores.loss, scores.metrics["accuracy"])
    assert [type(value) for value in values] == [int, float, float]


@pytest.mark.parametrize("loss", [math.nan, math.inf, torch.tensor(math.nan)])
def test_a_loss_that_is_not_finite_has_diverged(loss: Any) -> None:
    with pytest.raises(DivergedError, match="the loss is"):
        task_results.checked_report(TASK, TrainReport(1, loss))
    with pytest.raises(DivergedError, match="expected a finite number"):
        task_results.checked_scores(TASK, Scores(1, loss))


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (None, "evaluate(): None, expected Scores"),
        (0.5, "evaluate(): 0.5, expected Scores"),
        (Scores(-1, 0.5), "examples: -1"),
        (
            Scores(2, 0.5, {"accuracy": -0.3}),
            "metrics: accuracy: -0.3, expected 0 to 1, as Task.metrics declares",
        ),
        (Scores(2, 0.5, {"accuracy": 97.1}), "accuracy: 97.1, expected 0 to 1"),
        (Scores(2, "x"), "loss: a str, expected"),  # type: ignore[arg-type]
        (Scores(2, 0.5, [1]), "metrics: a list of 1, expected a dict"),  # type: ignore[arg-type]
        (Scores(2, 0.5, {"accuracy": "x"}), "metrics: accuracy: a str, expected a number"),  # type: ignore[dict-item]
        (Scores(2, 0.5, {"f1": 0.5}), "metrics: f1, expected one that Task.metrics declares: accuracy"),
        (Scores(2, 0.5, {1: 0.5}), "metrics: 1, expected one that"),  # type: ignore[dict-item]
        (Scores(2, 0.5, confusion=[[2]]), "confusion: a list of 1, expected"),  # type: ignore[arg-type]
        (Scores(2, 0.5, confusion=CONFUSION), "confusion: 3 in total, expected 2, one for each example"),
    ],
)
def test_wrong_scores_are_named(scores: Any, words: str) -> None:
    with pytest.raises(TaskError) as raised:
        task_results.checked_scores(TASK, scores)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "predict(): None, expected a dict"),
        ({}, "predict(): a dict of 0, expected a dict with at least one member"),
        ([0.5], "predict(): a list of 1, expected"),
        ({"probabilities": {}}, "predict(): probabilities: a dict of 0, expected a dict of 1 to"),
        ({"probabilities": {"a\n": 0.5}}, "expected printable text as a name"),
        ({"probabilities": {"a": None}}, "predict(): probabilities: 'a': None, expected a number"),
        ({"label": "b", "probabilities": {"a": 1}}, "predict(): label: a str, expected one of the labels"),
        ({"value": 1j}, "predict(): a complex, expected what JSON can express"),
        ({"value": "x" * task_results.MAX_ANSWER}, "characters of JSON, expected at most"),
    ],
)
def test_wrong_answers_are_named(answer: Any, words: str) -> None:
    with pytest.raises(TaskError) as raised:
        task_results.checked_answer(TASK, answer)
    assert words in str(raised.value)


@pytest.mark.parametrize("answer", [{"probabilities": {"a": math.nan}}, {"values": [1, [math.inf]]}])
def test_answers_are_finite(answer: Any) -> None:
    with pytest.raises(DivergedError, match="the model's output is not finite"):
        task_results.checked_answer(TASK, answer)


def test_arrays_become_lists() -> None:
    answer = {"values": np.arange(3), "value": torch.tensor(0.5), "more": {"deep": (np.float32(2.0), None)}}
    assert task_results.checked_answer(TASK, answer) == {
        "values": [0, 1, 2],
        "value": 0.5,
        "more": {"deep": [2.0, None]},
    }


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "load(): None, expected a LocalData"),
        (LocalData(None, None), "load(): None, expected Examples"),  # type: ignore[arg-type]
        (LocalData(TWO, TWO.labels), "expected Examples"),
        (LocalData(Examples(None, TWO.labels), None), "expected inputs and labels with a length"),
        (LocalData(Examples(TWO.inputs[:1], TWO.labels), None), "1 inputs, expected 2, as many as labels"),
    ],
)
def test_wrong_data_is_named(data: Any, words: str) -> None:
    with pytest.raises(TaskError) as raised:
        task_results.checked_data(TASK, data)
    assert words in str(raised.value)


SECRET = 0.123456
WEIGHTS = {"layer.weight": torch.full((2, 2), SECRET)}


@pytest.mark.parametrize(
    "result", [WEIGHTS, (WEIGHTS, 3), [SECRET], np.array([SECRET]), torch.tensor(SECRET), "123456"]
)
def test_an_error_shows_no_values_that_a_task_has_returned(result: Any) -> None:
    refusals: list[Callable[[], object]] = [
        lambda: task_results.checked_data(TASK, result),
        lambda: task_results.checked_examples(TASK, "load_test()", result),
        lambda: task_results.checked_report(TASK, result),
        lambda: task_results.checked_report(TASK, TrainReport(result, 0.5)),
        lambda: task_results.checked_report(TASK, TrainReport(1, [result])),  # type: ignore[arg-type]
        lambda: task_results.checked_scores(TASK, result),
        lambda: task_results.checked_scores(TASK, Scores(2, 0.5, {"accuracy": [result]})),  # type: ignore[dict-item]
        lambda: task_results.checked_scores(TASK, Scores(2, 0.5, confusion=result)),
        lambda: task_results.checked_answer(TASK, {"probabilities": [result]}),
        lambda: task_results.checked_answer(TASK, {"probabilities": {"a": [result]}}),
        lambda: task_results.checked_answer(TASK, {"value": {1j, str(result)}}),
    ]
    for refuse in refusals:
        with pytest.raises(TaskError) as raised:
            refuse()
        assert "123" not in str(raised.value)


def test_right_data_stays_as_it_is() -> None:
    data = LocalData(TWO, None)
    assert task_results.checked_data(TASK, data) is data


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (["auc"], "metrics: ['auc'], expected a tuple"),
        (("auc",), "metrics: ('auc',), expected a tuple"),
        ((Metric("loss"),), "'loss' has a meaning of its own"),
        ((Metric("auc"), Metric("auc")), "expected names that differ"),
        ((Metric(7),), "metrics.0.name: 7"),  # type: ignore[arg-type]
        ((Metric("mae", minimum=float("nan")),), "metrics.0.minimum: nan"),
    ],
)
def test_metrics_that_cannot_be_declared_are_named(
    metrics: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DigitsTask, "metrics", metrics)
    with pytest.raises(UnknownTaskError) as raised:
        task_results.declared_metrics(TASK)
    assert str(raised.value).startswith("task digits: metrics")
    assert words in str(raised.value)
