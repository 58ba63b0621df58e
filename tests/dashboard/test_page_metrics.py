"""The page shows the metrics that a task declares: their unit, their direction and their split."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.browser import CheckedPage
from tests.support.simulated_federation import ACCURACY, SimulatedFederation, edge, now

pytestmark = pytest.mark.broker
Open = Callable[..., CheckedPage]

MAE = {"name": "mae", "higher_is_better": False, "unit": "kWh", "minimum": 0, "maximum": None}
R2 = {"name": "r2", "higher_is_better": True, "unit": "", "minimum": None, "maximum": 1}


def show(federation: SimulatedFederation, *declared: dict[str, object]) -> None:
    """Publishes a run with two versions on the holdout."""
    federation.birth()
    values = {
        "mae": [21.853, 23.04], "r2": [0.5, -0.25], "loss": [4.0, 5.0], "after_mae": [20.0, None],
        "train_loss": [5.0, 5.5],
    }  # fmt: skip
    columns = {
        "round": [1, 2], "version": [1, 2], "metrics": values, "split": ["holdout"] * 2, "seconds": [2.0] * 2,
        "participants": [2] * 2, "cohort": [2] * 2, "bytes_up": [1000] * 2, "bytes_down": [500] * 2,
    }  # fmt: skip
    history = {"task": "house", "rounds": 10, "started": now(), "metrics": declared, "columns": columns}
    federation.publish("history", federation.scope("history", **history))
    primary = declared[0] if declared else None
    metrics = {"mae": 23.04, "loss": 5.0}
    federation.status(task="house", metrics=metrics, primary=primary, split="holdout")
    federation.edges({"1": edge("in", primary=21.5, loss=4.5)})
    federation.result(2, metrics=metrics, primary=primary, split="holdout")


def test_an_error_in_its_unit_is_no_percentage(federation: SimulatedFederation, opened: Open) -> None:
    show(federation, MAE, R2)
    page = opened()
    page.wait_text("#f-primary", "23.0 kWh")
    assert page.text("#f-primary-name") == "mae (holdout)"
    page.wait_text("#f-primary-more", "best 21.9 kWh")
    page.wait_text(
        "[data-curve=metric] .readout", "round 2: mae 23.0 kWh · dashed: on the edges' holdouts – (holdout)"
    )
    page.wait_text("#events", "Round 2: version 2 from 2 updates in 2.5 s, mae 23.0 kWh (holdout)")
    page.wait_text("#edges-grid", "21.5 kWh")
    page.wait(
        "document.querySelector('#edges-grid .value').scrollWidth"
        " <= document.querySelector('#edges-grid .value').clientWidth"
    )
    assert page.text("#metric-title") == "mae (kWh)"
    page.page.locator("#edges-as-table").click()
    page.wait_text("[data-column=primary]", "mae")
    assert "%" not in page.text("body")

    page.page.locator("[data-curve=metric] select").select_option("r2")
    page.wait_text("[data-curve=metric] .readout", "round 2: r2 -0.250 (holdout)")
    assert page.text("#metric-title") == "r2"


def test_without_metrics_the_loss_is_shown_alone(federation: SimulatedFederation, opened: Open) -> None:
    show(federation)
    page = opened()
    page.wait_text("#f-loss", "5.000")
    page.wait_text(
        "[data-curve=loss] .readout", "round 2: loss 5.000 · dashed: training loss 5.500 (holdout)"
    )
    assert page.text("#edges-detail") == "Choose an edge to see its details."
    assert page.page.locator("[data-curve=metric]").is_hidden()
    assert page.page.locator("#f-primary").is_hidden()
    page.wait_text("#events", "Round 2: version 2 from 2 updates in 2.5 s, loss 5.000 (holdout)")


def test_a_request_of_numbers_and_texts_is_a_form(federation: SimulatedFederation, opened: Open) -> None:
    show(federation, MAE)
    federation.requests()
    page = opened()
    example = {"age": 63, "sex": "male"}
    federation.answer(
        federation.request(empty=True),
        label=None,
        probabilities=None,
        error="the request is empty",
        example=example,
    )
    page.page.locator("#predict-form input[name=age]").fill("41")
    page.page.locator("#predict-form input[name=sex]").fill("female")
    assert not page.page.locator("#predict-board").is_visible()
    page.page.locator("#predict-ask").click()
    request = federation.request()
    assert json.loads(request.payload) == {"age": 41, "sex": "female"}
    federation.answer(
        request, label=None, probabilities=None, output={"value": 21.85312, "unit": "kWh", "x": [1]}
    )
    page.wait_text("#answer-label", "21.8531 kWh; x [1]")
    assert "%" not in page.text("#answer")


def test_any_other_request_is_json(federation: SimulatedFederation, opened: Open) -> None:
    show(federation, MAE)
    federation.requests()
    page = opened()
    federation.answer(
        federation.request(empty=True),
        label=None,
        probabilities=None,
        error="-",
        example={"values": [[1.5, 2]]},
    )
    page.page.locator("#predict-form textarea").fill('{"values": [[3, 4]]}')
    page.page.locator("#predict-ask").click()
    request = federation.request()
    assert json.loads(request.payload) == {"values": [[3, 4]]}
    federation.answer(request, label=None, probabilities=None, output={"values": [1, 2.25], "unit": "°C"})
    page.wait_text("#answer-label", "1, 2.25 °C")


@pytest.mark.long
def test_a_task_without_an_example_has_a_field_for_json(
    federation: SimulatedFederation, opened: Open
) -> None:
    show(federation, MAE)
    federation.requests()
    page = opened()
    federation.answer(federation.request(empty=True), label=None, probabilities=None, error="-", example=None)
    page.page.locator("#predict-form textarea").fill("[1]")
    assert not page.page.locator("#predict-board").is_visible()
    page.page.locator("#predict-ask").click()
    assert json.loads(federation.request().payload) == [1]


@pytest.mark.long
def test_a_task_of_pictures_has_the_board(federation: SimulatedFederation, opened: Open) -> None:
    show(federation, MAE)
    federation.requests()
    page = opened()
    federation.answer(
        federation.request(empty=True), error="-", label=None, probabilities=None, example={"pixels": [[0]]}
    )
    page.draw((8, 8), (20, 20))
    federation.answer(federation.request())
    page.wait_text("#answer-label", "7")
    assert not page.page.locator("#predict-form").is_visible()


def test_the_edges_at_which_the_model_is_worth_least_are_named(
    federation: SimulatedFederation, opened: Open
) -> None:
    show(federation, MAE)
    page = opened()
    page.wait_text("#f-primary", "23.0 kWh")
    assert page.page.locator("#f-worst-box").is_hidden(), "no edge has measured anything"
    worst = {"lab-a": 31.5, "7": 30.2, "3": 29.0}
    federation.result(3, metrics={"mae": 23.0, "edges_mean": 25.5}, primary=MAE, worst_edges=worst)
    page.wait_text("#f-worst", "lab-a 31.5 kWh")
    assert page.text("#f-worst-more") == "7 30.2 kWh · 3 29.0 kWh · mean 25.5 kWh"
    federation.result(2, metrics={"mae": 23.0}, primary=MAE, worst_edges={"1": 99.0})
    federation.result(4, metrics={"mae": 23.0}, primary=MAE, worst_edges={"9": 28.0})
    page.wait_text("#f-worst", "9 28.0 kWh")


def test_what_the_personal_models_are_worth(federation: SimulatedFederation, opened: Open) -> None:
    show(federation, ACCURACY)
    page = opened()
    page.wait_text("#f-present", "1")
    assert page.page.locator("#f-personal-box").is_hidden(), "the run has made none"
    scores = {
        "1": {"before": 0.5, "after": 0.75}, "2": {"before": 0.25, "after": 0.5},
        "3": {"before": 0.9, "after": 0.85}, "lab-a": {"before": 0.75, "after": 1.0},
    }  # fmt: skip
    edges = {name: edge("in", primary=0.5) for name in ("1", "2", "lab-a", "3", "4")}
    federation.edges(edges, phase="finished", personal=scores)
    page.wait_text("#f-personal", "60.0 % → 77.5 %")
    assert page.text("#f-personal-more") == (
        "mean of 4 edges; worst:\n2: 25.0 % → 50.0 %\n1: 50.0 % → 75.0 %\n3: 90.0 % → 85.0 %"
    )
    page.page.locator("#edge-3").click()
    assert "Personal model\n90.0 % → 85.0 %" in page.text("#edges-detail")
    page.page.locator("#edges-as-table").click()
    page.page.locator("[data-column=personal] button").click()
    rows = page.page.locator("#edges-table tbody tr").all_inner_texts()
    assert ["lab-a" in rows[0], "75.0 % → 100.0 %" in rows[0], "4" in rows[-1]] == [True, True, True], rows


@pytest.mark.long
def test_the_worst_personal_model_is_that_with_the_largest_error(
    federation: SimulatedFederation, opened: Open
) -> None:
    show(federation, MAE)
    page = opened()
    scores = {str(number): {"before": 30.0, "after": 20.0 + number} for number in range(1, 5)}
    federation.edges({name: edge("in") for name in scores}, phase="finished", personal=scores)
    page.wait_text("#f-personal", "30.0 kWh → 22.5 kWh")
    assert page.text("#f-personal-more").startswith("mean of 4 edges; worst:\n4: 30.0 kWh → 24.0 kWh\n3: ")
