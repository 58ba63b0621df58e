"""What an edge puts into the sums of a survey are the counts and numbers of its own data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_edge.data import datasets
from fl_edge.errors import DataMismatchError, DataMissingError, PayloadError, TaskError, UnknownTaskError
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.survey import Columns, Surveyed
from fl_edge.tasks.task import Task
from fl_edge.training.executor import TrainedUpdate
from fl_edge.training.factory import executor_for
from fl_edge.training.survey_executor import SurveyExecutor
from fl_shared.protocol.messages import Partition, TrainingRequest, UpdateMetrics
from fl_shared.protocol.task_spec import format_task
from fl_shared.survey.layout import Sums
from fl_shared.survey.proportions import Proportions
from fl_shared.survey.terms import SurveyTerms
from fl_shared.tensors.manifest import Vector
from tests.support.picture_folders import fill
from tests.support.tables import houses, write_csv

WHOLE = Partition(index=0, count=1, scheme="own", seed=0, holdout=0.0)
REQUEST = TrainingRequest(epochs=1, batch_size=1, lr=0.1, momentum=0.0, seed=0)


def zeros(values: int) -> Vector:
    return np.zeros(values, np.float32)


def surveyed(executor: Any) -> tuple[Sums, TrainedUpdate]:
    manifest = executor.initial_weights(0, zeros)
    update = executor.train(zeros(manifest.values), manifest, WHOLE, REQUEST, 1, "a", lambda: False, zeros)
    terms = SurveyTerms(5)
    return Sums.read(update.delta, manifest, terms), update


@pytest.mark.parametrize(("task", "light"), [("digits", False), ("digits-mlp", True)])
def test_pictures_of_a_data_set(task: str, light: bool) -> None:
    executor = executor_for(f"{task}?survey-least=5", None, "cpu", light=light)
    sums, update = surveyed(executor)
    data = datasets.read("digits", "train", None)
    assert (sums.edges, sums.examples, update.examples) == (1, len(data.labels), 1)
    assert list(sums.classes.values()) == np.bincount(data.labels).tolist()
    pixels = sums.numbers["pixel"].moments
    assert (pixels.count, pixels.total) == (data.images.size, int(data.images.sum()) << 40)


def test_pictures_in_folders(tmp_path: Path) -> None:
    fill(tmp_path, "blue", count=3)
    fill(tmp_path, "red", count=5)
    executor = executor_for("images?survey-least=5&side=16", tmp_path, "cpu")
    sums, _ = surveyed(executor)
    assert sums.classes == {"blue": 3, "red": 5}
    red, blue = (sums.numbers[f"pixel.{name}"].moments for name in ("red", "blue"))
    assert red.count == blue.count == 8 * 16 * 16
    assert red.mean == pytest.approx((3 * 20 + 5 * 220) / 8, abs=8)


def test_a_table_whose_target_is_a_number(tmp_path: Path) -> None:
    houses(tmp_path / "houses.csv", 1)
    sums, update = surveyed(executor_for("tabular?target=price&survey-least=5", tmp_path, "cpu", light=True))
    lines = [line.split(",") for line in (tmp_path / "houses.csv").read_text().splitlines()[1:]]
    gaps = sum(not line[0] for line in lines)
    assert gaps
    assert (sums.examples, sums.classes, set(sums.numbers)) == (80, {}, {"area", "rooms", "price"})
    assert (sums.numbers["area"].moments.count, sums.numbers["area"].missing) == (80 - gaps, gaps)
    assert sums.numbers["price"].moments.mean == pytest.approx(np.mean([float(line[3]) for line in lines]))
    assert sums.categories == {"kind": (80, 0, {})}
    assert update.metrics.train is not None
    assert update.metrics.train["missing area"] == gaps


def test_categories_with_declared_values(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(1, "M", "y"), (2, "f", "n"), (3, "", "y"), (4, "m", "n")]
    write_csv(tmp_path / "a.csv", ("x", "sex", "state"), rows)
    task = "tabular?target=state&categorical=sex:m%7Cf&survey-least=5"
    sums, _ = surveyed(executor_for(task, tmp_path, "cpu", light=True))
    assert sums.categories == {"sex": (3, 1, {"m": 2, "f": 1})}
    assert sums.classes == {"n": 2, "y": 2}


def test_an_edge_with_other_columns_says_which(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(1, 2, "y"), (3, 4, "n")]
    write_csv(tmp_path / "a" / "t.csv", ("age", "height", "state"), rows)
    write_csv(tmp_path / "b" / "t.csv", ("age", "weight", "state"), rows)
    task = "tabular?target=state&survey-least=5"
    first, other = (executor_for(task, tmp_path / name, "cpu", light=True) for name in ("a", "b"))
    run = first.initial_weights(0, zeros)
    first.compare(run)
    expected = "task tabular: column of numbers 'height' is missing here; the survey has: age, height"
    with pytest.raises(DataMismatchError, match=expected):
        other.compare(run)


def test_a_range_of_an_unknown_column(tmp_path: Path) -> None:
    houses(tmp_path / "houses.csv", 1)
    task = "tabular?target=price&survey-least=5&survey-ranges=aera:0.0:1.0"
    with pytest.raises(
        DataMismatchError, match="--range aera: is not a column of numbers; expected one of: area, rooms"
    ):
        executor_for(task, tmp_path, "cpu", light=True).initial_weights(0, zeros)


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ("synthetic-10?survey-least=5", "a synthetic task, synthetic-10, has no data to survey"),
        ("digits-mlp?survey-least=0", "survey-least: '0', expected a number of edges from 2 on"),
    ],
)
def test_what_cannot_be_surveyed(task: str, problem: str) -> None:
    with pytest.raises(UnknownTaskError, match=problem):
        executor_for(task, None, "cpu", light=True)


def test_an_edge_that_hides_examples_takes_part_in_none() -> None:
    with pytest.raises(UnknownTaskError, match="--dp-sgd: a survey has no noise that hides single examples"):
        executor_for("digits-mlp?survey-least=5", None, "cpu", hides_examples=True)


def test_under_a_budget_it_sends_proportions_and_no_figures(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(1, "m", "y"), ("nan", "f", "n"), (1e12, "", "y"), ("", "m", "n")]
    write_csv(tmp_path / "a.csv", ("x", "sex", "state"), rows)
    terms = SurveyTerms(5, {"x": (0.0, 3.0)}, private=True)
    task = format_task("tabular", {"target": "state", "categorical": "sex:m|f", **terms.members})
    executor = executor_for(task, tmp_path, "cpu", light=True)
    manifest = executor.initial_weights(0, zeros)
    update = executor.train(zeros(manifest.values), manifest, WHOLE, REQUEST, 1, "a", lambda: False, zeros)
    assert np.linalg.norm(update.delta) <= 1 + 1e-6
    assert (update.examples, update.metrics) == (1, UpdateMetrics())
    found = Proportions.read(update.delta, manifest, terms)
    assert found.classes == pytest.approx({"n": 0.5, "y": 0.5})
    missing, shares = found.categories["sex"]
    assert {"": missing, **shares} == pytest.approx({"": 0.25, "m": 0.5, "f": 0.25})
    assert found.numbers["x"].missing == pytest.approx(0.5)
    assert found.numbers["x"].first == pytest.approx((-1 / 3 + 1) / 4)


def test_an_edge_without_examples_takes_part_in_a_private_survey() -> None:
    """Whether it has any would be told without noise otherwise."""
    task = load_task("digits-mlp")
    task.survey = lambda context: Surveyed(0, (), {"pixel": ()})  # type: ignore[method-assign]  # noqa: ARG005
    for private in (False, True):
        executor = SurveyExecutor(task, None, SurveyTerms(5, private=private))
        assert executor.summarize("a", WHOLE).examples == private
    manifest = executor.initial_weights(0, zeros)
    update = executor.train(zeros(manifest.values), manifest, WHOLE, REQUEST, 1, "a", lambda: False, zeros)
    found = Proportions.read(update.delta, manifest, SurveyTerms(5, private=True))
    assert [found.sizes[0], found.numbers["pixel"].missing] == pytest.approx([1, 1])
    assert set(found.classes.values()) == {0.0}


def test_no_data_and_no_predictions() -> None:
    executor = executor_for("tabular?target=x&survey-least=5", None, "cpu", light=True)
    with pytest.raises(DataMissingError, match="task tabular needs a table"):
        executor.summarize("a", WHOLE)
    digits = executor_for("digits-mlp?survey-least=5", None, "cpu", light=True)
    manifest = digits.initial_weights(0, zeros)
    with pytest.raises(PayloadError, match="no model"):
        digits.make_predictor(zeros(manifest.values), manifest)(b"{}")


@pytest.mark.parametrize(
    ("columns", "data", "problem"),
    [
        ("x", None, "survey_columns(): 'x', expected fl_edge.tasks.survey.Columns"),
        (Columns(), 3, "survey(): 3, expected fl_edge.tasks.survey.Surveyed"),
        (Columns((), ("x",)), Surveyed(2), "survey(): numbers: none, expected those of survey_columns(): x"),
        (Columns(("a",)), Surveyed(2, np.array([0, 1])), "survey(): labels: 1, expected 0 to 0"),
    ],
)
def test_mistakes_of_a_tasks_own_code(columns: Any, data: Any, problem: str) -> None:
    task = load_task("digits-mlp")
    task.survey_columns = lambda: columns  # type: ignore[method-assign]
    task.survey = lambda context: data  # type: ignore[method-assign]  # noqa: ARG005  its name is the task's
    with pytest.raises(TaskError, match=re.escape(problem)):
        surveyed(SurveyExecutor(task, None, SurveyTerms(5)))


def test_a_task_that_says_nothing_has_counts_of_its_classes() -> None:
    task = load_task("digits-mlp")
    task.survey_columns = lambda: Task.survey_columns(task)  # type: ignore[method-assign]
    task.survey = lambda context: Task.survey(task, context)  # type: ignore[method-assign]
    sums, _ = surveyed(SurveyExecutor(task, None, SurveyTerms(5)))
    assert sums.examples == sum(sums.classes.values())
    assert (sums.numbers, sums.categories) == ({}, {})
