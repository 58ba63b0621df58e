"""The task ``tabular`` on edges with and without torch, and what a federation learns from tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_aggregator.configuration.settings import Settings
from fl_edge.errors import DataMismatchError, DataMissingError, PayloadError, TaskOptionsError
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.tabular import TabularTask
from fl_edge.training.executor import Executor
from fl_edge.training.light_executor import LightExecutor
from fl_edge.training.torch_executor import TorchExecutor
from fl_shared.protocol.messages import Partition, TrainingRequest
from fl_shared.protocol.task_spec import format_task
from fl_shared.tensors.manifest import Manifest, Vector
from tests.support.tables import houses, patients, write_csv

Make = Callable[[TabularTask, Path | None], LightExecutor | TorchExecutor]
MAKERS: dict[str, Make] = {
    "light": LightExecutor,
    "torch": lambda task, data: TorchExecutor(task, data, "cpu"),
}
HOUSE = {"area": 120, "rooms": 4, "kind": "house"}
WORTH = 3 * 120 + 20 * 4 + 60


def task(**options: str) -> TabularTask:
    loaded = load_task(format_task("tabular", options))
    assert isinstance(loaded, TabularTask)
    return loaded


def own(index: int = 0) -> Partition:
    return Partition(index=index, count=3, scheme="own", seed=1, holdout=0.25)


def request(lr: float | None = None, epochs: int | None = None) -> TrainingRequest:
    return TrainingRequest(epochs=epochs, batch_size=16, lr=lr, momentum=0.9, seed=3)


def first_weights(executor: Executor) -> tuple[Manifest, Vector]:
    taken: list[Vector] = []

    def allocate(values: int) -> Vector:
        taken.append(np.zeros(values, np.float32))
        return taken[0]

    return executor.initial_weights(3, allocate), taken[0]


def federated(
    executors: Sequence[Executor], rounds: int, training: TrainingRequest
) -> tuple[Manifest, Vector]:
    """Returns the model after ``rounds`` of FedAvg. All updates are within the default caps."""
    manifest, weights = first_weights(executors[0])
    settings = Settings()
    caps = [
        settings.max_buffer if array.role == "buffer" else settings.max_delta for array in manifest.arrays
    ]
    cap = np.repeat(caps, [array.values for array in manifest.arrays])
    for number in range(1, rounds + 1):
        updates = [
            executor.train(
                weights.copy(),
                manifest,
                own(),
                training,
                number,
                str(i),
                lambda: False,
                lambda n: np.zeros(n, np.float32),
            )
            for i, executor in enumerate(executors)
        ]
        assert all((np.abs(update.delta) <= cap).all() for update in updates)
        total = sum(update.examples for update in updates)
        mean = sum(update.delta.astype(np.float64) * update.examples for update in updates) / total
        weights = (weights + mean).astype(np.float32)
    return manifest, weights


def pooled_score(executors: Sequence[Executor], manifest: Manifest, weights: Vector, metric: str) -> float:
    scores = [executor.evaluate(weights, manifest, "holdout", "a", own()) for executor in executors]
    return sum(s.metrics[metric] * s.examples for s in scores) / sum(s.examples for s in scores)


@pytest.mark.edge
@pytest.mark.parametrize("model", ["linear", "mlp"])
@pytest.mark.parametrize("kind", [patients, houses])
def test_edges_with_and_without_torch_do_the_same(
    tmp_path: Path, model: str, kind: Callable[[Path, int], Path]
) -> None:
    kind(tmp_path / "site.csv", 1)
    target = "state" if kind is patients else "price"
    light, full = (make(task(target=target, model=model), tmp_path) for make in MAKERS.values())
    assert light.summarize("a", own()) == full.summarize("a", own())
    assert light.declared_metrics() == full.declared_metrics()
    manifest, weights = federated([light], 2, request(lr=0.02))
    other_manifest, others = federated([full], 2, request(lr=0.02))
    assert manifest == other_manifest
    np.testing.assert_allclose(weights, others, atol=1e-4)
    scores = light.evaluate(weights, manifest, "holdout", "a", own())
    others_scores = full.evaluate(weights, manifest, "holdout", "a", own())
    assert scores.metrics == pytest.approx(others_scores.metrics, abs=1e-4)
    example = json.dumps(light.example_request()).encode()
    assert (
        str(light.make_predictor(weights, manifest)(example))[:8]
        == str(full.make_predictor(weights, manifest)(example))[:8]
    )


@pytest.mark.parametrize("statistics", ["federation", "site"])
def test_three_sites_learn_what_their_houses_are_worth(tmp_path: Path, statistics: str) -> None:
    for site in range(3):
        houses(tmp_path / str(site) / "houses.csv", site)
    options = {"target": "price", "unit": "k€", "statistics": statistics}
    edges = [LightExecutor(task(**options), tmp_path / str(site)) for site in range(3)]
    assert [metric.unit for metric in edges[0].task.metrics] == ["k€", "k€", ""]
    manifest, weights = federated(edges, 25, request(lr=0.02, epochs=4))
    scores = edges[0].evaluate(weights, manifest, "holdout", "a", own())
    assert list(scores.metrics) == ["mae", "rmse", "r2"]
    if statistics == "federation":
        assert pooled_score(edges, manifest, weights, "mae") < 20, "prices deviate by 120"
        answer = LightExecutor(task(**options), None).make_predictor(weights, manifest)(
            json.dumps(HOUSE).encode()
        )
        assert answer["unit"] == "k€"
        assert answer["value"] == pytest.approx(WORTH, abs=15), "also on an edge without a table"
    else:
        assert not any(array.name == "rounds" for array in manifest.arrays)
        assert sum(a.values for a in manifest.arrays if a.role == "buffer") == 0, "statistics stay at home"
        stranger = LightExecutor(task(**options), None).make_predictor(weights, manifest)
        with pytest.raises(PayloadError, match="this edge has no table, so it has no statistics"):
            stranger(json.dumps(HOUSE).encode())
        assert edges[0].make_predictor(weights, manifest)(json.dumps(HOUSE).encode())["unit"] == "k€"


def test_hospitals_together_come_within_two_points_of_pooled_training(tmp_path: Path) -> None:
    for site in range(4):
        patients(tmp_path / str(site) / "patients.csv", site, 150 + 50 * site)
        patients(tmp_path / "all" / f"{site}.csv", site, 150 + 50 * site)
    edges = [LightExecutor(task(target="state"), tmp_path / str(site)) for site in range(4)]
    pool = LightExecutor(task(target="state"), tmp_path / "all")
    assert [metric.name for metric in edges[0].task.metrics] == ["accuracy", "f1", "auc"]
    manifest, weights = federated(edges, 15, request())
    together = federated([pool], 15, request())[1]
    accuracy = pooled_score(edges, manifest, weights, "accuracy")
    assert accuracy > pooled_score(edges, manifest, together, "accuracy") - 0.02
    assert accuracy > 0.75


def test_a_class_is_predicted_with_probabilities_and_gaps(tmp_path: Path) -> None:
    patients(tmp_path / "site.csv", 1)
    edge = LightExecutor(task(target="state"), tmp_path)
    manifest, weights = federated([edge], 5, request())
    predict = edge.make_predictor(weights, manifest)
    assert predict(b'{"age": 90, "pressure": 170, "sex": "male"}')["label"] == "ill"
    answer = predict(b'{"age": 90}')
    assert list(answer["probabilities"]) == ["ill", "well"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    for payload in (b"", b"[1]", b"\xff", b"[" * 10_000):
        with pytest.raises(PayloadError, match=r'is no JSON object, expected one such as \{"age": 0, "pres'):
            predict(payload)
    with pytest.raises(PayloadError, match=r"^'no json' is no JSON object"):
        predict(b"no json")


def test_a_site_with_other_columns_is_told_which(tmp_path: Path) -> None:
    patients(tmp_path / "one" / "a.csv", 1)
    write_csv(tmp_path / "two" / "b.csv", ("age", "sex", "state"), [(1, "x", "ill"), (2, "y", "well")])
    manifest, weights = first_weights(LightExecutor(task(target="state"), tmp_path / "one"))
    other = LightExecutor(task(target="state"), tmp_path / "two")
    words = "two/b.csv: row 1: column 'pressure' is missing; the run has: age, pressure, sex"
    for compare in (lambda: other.model_from(weights, manifest), lambda: other.compare(manifest)):
        with pytest.raises(DataMismatchError, match=words):
            compare()


def test_a_class_that_the_run_does_not_have_is_found_in_the_table(tmp_path: Path) -> None:
    patients(tmp_path / "one" / "a.csv", 1)
    patients(tmp_path / "two" / "a.csv", 2, examples=20)
    with patients(tmp_path / "two" / "b.csv", 3, examples=20).open("a") as table:
        table.write("50,120,Male,dead\n")
    manifest, _ = first_weights(LightExecutor(task(target="state"), tmp_path / "one"))
    other = LightExecutor(task(target="state"), tmp_path / "two")
    with pytest.raises(
        DataMismatchError, match=r"b\.csv: row 22: column 'state': the class 'dead' is unknown"
    ):
        other.compare(manifest)


def test_a_table_that_is_divided_is_said_once_and_not_while_an_edge_tries_its_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    houses(tmp_path / "site.csv", 1)
    edge = LightExecutor(task(target="price"), tmp_path)
    edge.summarize("a", own())
    divided = own().model_copy(update={"scheme": "iid"})
    edge.summarize("", divided)
    assert not caplog.messages
    for client in "ab":
        edge.summarize(client, divided)
    assert caplog.messages == [
        (
            f"{tmp_path}: its 80 examples are divided among 3 edges (--partition iid); "
            "if each edge has tables of its own, the run needs --partition own"
        )
    ]


def test_a_task_without_a_table_says_so() -> None:
    with pytest.raises(DataMissingError, match="task tabular needs a table: --data DIR"):
        LightExecutor(task(target="x"), None).summarize("a", own())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "option 'target' is missing: --task-option target=VALUE"),
        ({"target": "x", "classes": "a"}, "classes=a: expected two or more"),
        ({"target": "x", "classes": "a,b", "kind": "regression"}, "and no kind=regression"),
        ({"target": "x", "columns": "x,y"}, "target=x: is also a column to learn from"),
        ({"target": "x", "hidden": "0"}, "option hidden=0: "),
        ({"target": "x", "model": "tree"}, "option model=tree: "),
        (
            {"target": "x", "colums": "a"},
            r"option 'colums' is unknown \(did you mean 'columns'\?\), expected one of: target, kind",
        ),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskOptionsError, match=message):
        task(**options)
