"""``series``: forecasts and anomalies, with torch and without."""

from __future__ import annotations

import csv
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_edge.data.statistics import from_places
from fl_edge.errors import (
    DataMismatchError,
    DataMissingError,
    PayloadError,
    TaskOptionsError,
    UnknownTaskError,
)
from fl_edge.tasks.registry import load_task
from fl_edge.training.executor import Executor, TrainedUpdate
from fl_edge.training.factory import executor_for
from fl_shared.protocol.task_spec import format_task
from fl_shared.tensors.manifest import unflatten
from tests.support.builders import partition, training_request

WINDOW = 12
FORECAST = {"target": "power", "window": str(WINDOW), "horizon": "2", "unit": "kW"}
ANOMALY = {"goal": "anomaly", "window": str(WINDOW)}
NATURAL = partition(0, scheme="natural", count=2, holdout=0.2)
OTHER = NATURAL.model_copy(update={"index": 1})
COLUMNS = ["power", "pressure"]


def write(directory: Path) -> Path:
    """Two sites, the second one noisier, and a test split: a daily rhythm at levels far from 0."""
    directory.mkdir(exist_ok=True)
    for number, name in enumerate(("a", "b", "test")):
        rng = np.random.default_rng(number)
        angle = 2 * np.pi * np.arange(300) / WINDOW
        noise = rng.normal(0, 1, (2, 300)) * (0.05, 0.3, 0.05)[number]
        with (directory / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            table.writerows(
                zip(
                    50 + 5 * (np.sin(angle) + noise[0]),
                    101_300 + 900 * (np.cos(angle) + noise[1]),
                    strict=True,
                )
            )
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("series"))


def executor(options: dict[str, str], data: Path | None, *, light: bool = False) -> Executor:
    return executor_for(format_task("series", options), data, "cpu", light=light)


def new(values: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.empty(values, np.float32)


def trained(it: Executor, base: Any, manifest: Any, rounds: int, **settings: Any) -> TrainedUpdate:
    """Trains on both sites for some rounds, and averages; the last update has the sum of all."""
    request = training_request(**{"epochs": 1, "lr": 0.03} | settings)
    weights = base.copy()
    for number in range(1, rounds + 1):
        updates = [
            it.train(weights.copy(), manifest, part, request, number, client, lambda: False, new)
            for client, part in (("a", NATURAL), ("b", OTHER))
        ]
        weights += np.mean([update.delta for update in updates], axis=0)
    return TrainedUpdate(weights - base, updates[0].examples, updates[0].steps, 0.0, updates[0].metrics)


@lru_cache
def run(options: tuple[tuple[str, str], ...], data: Path, rounds: int, light: bool = False) -> Any:
    it = executor(dict(options), data, light=light)
    base: list[Any] = []

    def allocate(values: int) -> Any:
        base.append(new(values))
        return base[0]

    manifest = it.initial_weights(3, allocate)
    return it, manifest, base[0] + trained(it, base[0], manifest, rounds).delta


@pytest.mark.edge
@pytest.mark.parametrize("model", [pytest.param("gru", marks=pytest.mark.long), "mlp"])
def test_a_forecast_is_good_and_in_the_unit_of_the_target(data: Path, model: str) -> None:
    pytest.importorskip("torch")
    it, manifest, weights = run(tuple({**FORECAST, "model": model}.items()), data, 20)
    scores = it.evaluate(weights, manifest, "test", "a", None)
    assert scores.metrics.keys() == {"mae", "rmse"}
    assert scores.metrics["mae"] < 1, "kW, while the rhythm has an amplitude of 5"
    assert scores.examples == 300 - WINDOW - 1
    declared = it.declared_metrics()
    assert [(metric.name, metric.unit, metric.higher_is_better) for metric in declared] == [
        ("mae", "kW", False),
        ("rmse", "kW", False),
    ]
    angle = 2 * np.pi * np.arange(WINDOW + 2) / WINDOW
    steps = np.column_stack([101_300 + 900 * np.cos(angle), 50 + 5 * np.sin(angle)])
    request = {"columns": ["pressure", "power"], "values": steps[:WINDOW].tolist()}
    answer = it.make_predictor(weights, manifest)(json.dumps(request).encode())
    assert answer["unit"] == "kW"
    assert answer["values"] == pytest.approx(steps[WINDOW:, 1].tolist(), abs=2)


def test_statistics_of_the_federation_are_averaged(data: Path) -> None:
    _, manifest, weights = run(tuple(ANOMALY.items()), data, 2, light=True)
    buffers = {
        a.name: value for a, value in zip(manifest.arrays, unflatten(weights, manifest).values(), strict=True)
    }
    present, mean, square = from_places(buffers["column.pressure"])
    assert present == pytest.approx(1, abs=1e-3)
    assert mean == pytest.approx(101_300, abs=40)
    assert np.sqrt(square) == pytest.approx(900 / np.sqrt(2), rel=0.2)
    roles = {array.name: array.role for array in manifest.arrays}
    assert {name for name, role in roles.items() if role == "buffer"} == {
        "rounds",
        "column.power",
        "column.pressure",
    }


def test_anomalies_are_found_by_a_threshold_that_is_each_edges_own(data: Path) -> None:
    it, manifest, weights = run(tuple(ANOMALY.items()), data, 20, light=True)
    angle = 2 * np.pi * np.arange(WINDOW) / WINDOW
    usual = np.column_stack([50 + 5 * np.sin(angle), 101_300 + 900 * np.cos(angle)])
    odd = usual.copy()
    odd[6:, 0] = 50
    answers = {
        (name, part.index): it.make_predictor(weights, manifest, "a", part)(
            json.dumps({"values": window.tolist()}).encode()
        )
        for name, window in (("usual", usual), ("odd", odd))
        for part in (NATURAL, OTHER)
    }
    assert [answers["usual", k]["anomaly"] for k in (0, 1)] == [False, False]
    assert answers["odd", 0]["anomaly"] is True
    assert answers["odd", 0]["value"] == answers["odd", 1]["value"], "the model is the federation's"
    assert answers["odd", 0]["threshold"] < answers["odd", 1]["threshold"], "the second site is noisier"
    holdout = it.evaluate(weights, manifest, "holdout", "a", NATURAL).metrics
    assert holdout["flagged"] < 0.2
    test = it.evaluate(weights, manifest, "test", "a", None)
    assert test.metrics == {"reconstruction_error": test.loss}, "the test split is no edge's own"


def test_an_edge_without_tables_knows_the_columns_from_the_model_and_no_threshold(data: Path) -> None:
    _, manifest, weights = run(tuple(ANOMALY.items()), data, 20, light=True)
    bare = executor(ANOMALY, None, light=True)
    request = {"values": [[50, 101_300]] * WINDOW}
    answer = bare.make_predictor(weights, manifest)(json.dumps(request).encode())
    assert (answer["anomaly"], answer["threshold"]) == (None, None)
    assert bare.example_request()["columns"] == COLUMNS
    with pytest.raises(DataMissingError, match="task series needs tables: --data DIR"):
        bare.summarize("a", NATURAL)


@pytest.mark.edge
def test_full_and_light_edges_train_alike(data: Path) -> None:
    pytest.importorskip("torch")
    for options in (ANOMALY, {**FORECAST, "model": "mlp"}):
        (_, manifest, weights), (_, same, other) = (
            run(tuple(options.items()), data, 1, light=light) for light in (False, True)
        )
        assert manifest == same
        np.testing.assert_allclose(weights, other, atol=1e-4, rtol=0)


def test_a_gru_needs_torch(data: Path) -> None:
    with pytest.raises(UnknownTaskError, match="needs torch for a GRU: expected --task-option model=mlp"):
        executor(FORECAST, data, light=True).summarize("a", NATURAL)


def test_other_columns_than_the_runs_are_named(data: Path, tmp_path: Path) -> None:
    _, manifest, weights = run(tuple(ANOMALY.items()), data, 2, light=True)
    (tmp_path / "a.csv").write_text("power,flow\n" + "1,2\n" * 100)
    with pytest.raises(
        DataMismatchError, match=r"a.csv: row 1: column 'flow' is not in the run; the run has: power, press"
    ):
        executor(ANOMALY, tmp_path, light=True).evaluate(weights, manifest, "holdout", "a", NATURAL)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "a forecast needs --task-option target=COLUMN"),
        ({"goal": "anomaly", "model": "gru"}, "goal=anomaly has no target, and takes model=mlp"),
        ({"target": "a", "time": "a"}, "time=a: is also a column to learn from"),
        ({"target": "a", "window": "0"}, "option window=0: Input should be greater than or equal to 1"),
        (
            {"target": "a", "windows": "3"},
            "option 'windows' is unknown (did you mean 'window'?), expected one of: goal, target",
        ),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, str], words: str) -> None:
    with pytest.raises(TaskOptionsError) as raised:
        load_task(format_task("series", options))
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("nonsense", "is no JSON object"),
        ({"value": 3}, "'value' is unknown, expected: columns, values"),
        ({}, "values: None, expected 12 rows"),
        ({"values": [[1, 2]]}, "values: 1 rows, expected 12 rows"),
        ({"values": [[1, 2]] * 11 + [[1]]}, "values: row 12: [1], expected 2 numbers: power, pressure"),
        ({"values": [[1, "x"]] * 12}, "values: row 1, column 'pressure': 'x' is no number"),
        ({"values": [[True, 1]] * 12}, "values: row 1, column 'power': True is no number"),
        ({"values": [[float("nan"), 1]] * 12}, "values: row 1, column 'power': nan is no number"),
        ({"values": [[10**400, 1]] * 12}, "values: row 1, column 'power': 1000"),
        ({"columns": ["power"], "values": [[1]] * 12}, "columns: ['power'], expected in any order: power, pressure"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_where(data: Path, request_: Any, words: str) -> None:
    it, manifest, weights = run(tuple(ANOMALY.items()), data, 2, light=True)
    with pytest.raises(PayloadError) as raised:
        it.make_predictor(weights, manifest)(json.dumps(request_).encode())
    assert words in str(raised.value)


def test_too_many_windows_are_refused_with_a_stride(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_edge.tasks.series.MAX_WINDOW_BYTES", 10_000)
    with pytest.raises(DataMissingError, match=r"its 229 windows have .*: --task-option stride=3"):
        executor(ANOMALY, data, light=True).summarize("a", NATURAL)
