"""A pool gives jobs to worker processes, and replaces those that die."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from fl_edge.tasks.registry import load_task
from fl_edge.tasks.task import LoadContext
from fl_edge.training import local_training
from fl_edge.workers import limits, protocol
from fl_edge.workers.jobs import (
    EvaluateOutcome,
    ExampleOutcome,
    FailureOutcome,
    LoadOutcome,
    PredictOutcome,
    TrainOutcome,
)
from fl_edge.workers.pool import MAX_PREDICTIONS_PER_WORKER
from fl_edge.workers.process import WorkerProcess
from fl_edge.workers.protocol import CacheModel
from fl_edge.workers.slot import MAX_CACHED_MODELS
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.manifest import Manifest
from fl_shared.tensors.sections import ModelSection, model_digest
from tests.support.builders import ACCURACY, partition, training_request, training_settings
from tests.support.pool_harness import SEVEN, PoolHarness, first_model, train_for_ever
from tests.support.wait import wait_until

pytestmark = pytest.mark.edge


@pytest.fixture(scope="module")
def harness(forked_children_of_module: None) -> Iterator[PoolHarness]:
    harness = PoolHarness(2)
    harness.wait_ready()
    yield harness
    harness.pool.close()


@pytest.fixture(scope="module")
def narrow(forked_children_of_module: None) -> Iterator[PoolHarness]:
    """A pool of one worker in which five predictions may wait, and which keeps two models of ``digits``."""
    bytes_kept = first_model().weights.size * 2
    harness = PoolHarness(1, limits=limits.Limits(predictions_waiting=5, bytes_kept=bytes_kept))
    yield harness
    harness.pool.close()


@pytest.fixture(scope="module")
def first() -> CacheModel:
    return first_model()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[protocol.ToWorker]:
    """What pools send to their workers during the test, in order."""
    frames: list[protocol.ToWorker] = []
    really_send = WorkerProcess.send

    def send(self: WorkerProcess, frame: protocol.ToWorker) -> None:
        frames.append(frame)
        really_send(self, frame)

    monkeypatch.setattr(WorkerProcess, "send", send)
    return frames


def model(digest: str, data: bytes, manifest: Manifest) -> CacheModel:
    return CacheModel(digest, manifest, SharedBytes.copy_of(data))


def test_the_pool_itself_imports_no_torch() -> None:
    code = "import sys, fl_edge.workers.pool; print('torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout == "False\n"


def test_a_part_is_looked_at(harness: PoolHarness, first: CacheModel) -> None:
    ids = [harness.pool.load(f"edge-{k}", "digits", partition(k)) for k in range(20)]
    loaded = [harness.expect(LoadOutcome, job) for job in ids]
    assert sum(part.examples + part.holdout_examples for part in loaded) == 1438
    assert {part.manifest.digest for part in loaded} == {first.manifest.digest}


def test_without_a_part_only_the_task_is_looked_at(harness: PoolHarness, first: CacheModel) -> None:
    loaded = harness.expect(LoadOutcome, harness.pool.load("evaluator", "digits", None))
    assert (loaded.examples, loaded.holdout_examples, loaded.manifest) == (0, 0, first.manifest)


def test_a_worker_trains_to_the_same_bits_as_anyone(harness: PoolHarness, first: CacheModel) -> None:
    local_training.configure_torch()
    task = load_task("digits")
    manifest, weights = local_training.initial_weights(task, 0)
    ids = [
        harness.pool.train(f"edge-{k}", "digits", partition(k), first, training_request(), 3)
        for k in (4, 5, 4)
    ]
    trained = [harness.expect(TrainOutcome, job) for job in ids]
    for k, update in zip((4, 5, 4), trained, strict=True):
        expected = local_training.train_update(
            task,
            task.load(LoadContext("0", partition(k), None)),
            weights,
            manifest,
            training_settings(),
            3,
            f"edge-{k}",
            lambda: False,
        )
        assert update.delta.view == expected.delta.astype("<f4").tobytes()
        assert update.digest == model_digest([ModelSection("delta", manifest, update.delta.view)])
        assert (update.examples, update.steps) == (expected.examples, expected.steps)
        assert update.metrics == expected.metrics
        assert update.manifest == manifest


def test_without_a_base_first_weights_are_made(harness: PoolHarness, first: CacheModel) -> None:
    update = harness.expect(
        TrainOutcome, harness.pool.train("edge-0", "digits", partition(), None, training_request(seed=0), 0)
    )
    assert update.delta == first.weights
    assert (update.steps, update.examples, update.manifest) == (0, 58, first.manifest)


def test_versions_are_evaluated_on_the_test_split_and_on_the_holdout(
    harness: PoolHarness, first: CacheModel
) -> None:
    test = harness.pool.evaluate("evaluator", "digits", "test", None, first)
    held = harness.pool.evaluate("edge-0", "digits", "holdout", partition(), first)
    none = harness.pool.evaluate("edge-0", "digits", "holdout", partition(holdout=0.0), first)
    unnamed = harness.pool.evaluate("edge-0", "digits", "holdout", None, first)
    task = load_task("digits")
    manifest, weights = local_training.initial_weights(task, 0)
    expected = local_training.evaluate(task, weights, manifest, task.load_test(None))
    assert harness.expect(EvaluateOutcome, test) == EvaluateOutcome(
        359, expected.loss, dict(expected.metrics), expected.confusion, (ACCURACY,)
    )
    assert harness.expect(EvaluateOutcome, held).examples == 14
    assert "no examples of the partition are held out" in harness.expect(FailureOutcome, none).message
    assert "no partition" in harness.expect(FailureOutcome, unnamed).message


def test_a_prediction_is_answered(harness: PoolHarness, first: CacheModel) -> None:
    answer = harness.expect(PredictOutcome, harness.pool.predict("digits", first, SEVEN))
    task = load_task("digits")
    manifest, weights = local_training.initial_weights(task, 0)
    expected = task.predict(local_training.model_from(task, weights, manifest), SEVEN)
    assert answer.answer["probabilities"] == pytest.approx(expected["probabilities"])
    assert answer.answer["label"] == expected["label"]


def test_an_empty_request_is_answered_with_an_example(harness: PoolHarness, first: CacheModel) -> None:
    answer = harness.expect(ExampleOutcome, harness.pool.predict("digits", first, b""))
    assert answer.example == {"pixels": [[0] * 8] * 8}


def test_each_digest_is_a_model_of_its_own_and_the_model_comes_again_when_forgotten(
    harness: PoolHarness, first: CacheModel
) -> None:
    vectors = [np.frombuffer(first.weights.view, "<f4") * np.float32(1 + k / 10) for k in range(8)]
    task = load_task("digits")
    for _ in range(2):
        for k, vector in enumerate(vectors):
            job = harness.pool.predict(
                "digits", model(f"scaled-{k}", vector.tobytes(), first.manifest), SEVEN
            )
            expected = task.predict(local_training.model_from(task, vector.copy(), first.manifest), SEVEN)
            answer = harness.expect(PredictOutcome, job).answer
            assert answer["probabilities"] == pytest.approx(expected["probabilities"])
    for slot in harness.pool._slots:
        assert len(slot.models) <= MAX_CACHED_MODELS


def test_failures_are_of_a_kind(harness: PoolHarness, first: CacheModel) -> None:
    bad = np.full(first.manifest.values, np.nan, "<f4").tobytes()
    cases = [
        (harness.pool.load("e", "nope", partition()), "unknown-task", "'nope' is unknown here"),
        (
            harness.pool.load("e", "digits", partition(examples=9999)),
            "failed",
            "examples: 9999, but the data set has only",
        ),
        (
            harness.pool.predict("digits", first, b"?"),
            "bad-payload",
            "neither a PNG",
        ),
        (harness.pool.predict("digits", first_model("mnist", "d1"), SEVEN), "other-model", "conv1.bias"),
        (harness.pool.predict("digits", model("d2", bad, first.manifest), SEVEN), "failed", "not finite"),
        (
            harness.pool.evaluate("e", "digits", "test", None, model("d3", b"abc", first.manifest)),
            "failed",
            "3 bytes",
        ),
        (
            harness.pool.evaluate("e", "digits", "test", None, model("d4", b"abcd", first.manifest)),
            "failed",
            "expected (53002,)",
        ),
        (
            harness.pool.train("e", "digits", partition(), first, training_request(lr=1e6), 1),
            "failed",
            "diverged",
        ),
    ]
    for job, kind, message in cases:
        failed = harness.expect(FailureOutcome, job)
        assert failed.kind == kind, failed
        assert message in failed.message


def test_a_running_job_is_cancelled_within_a_step(harness: PoolHarness, first: CacheModel) -> None:
    job = train_for_ever(harness)
    wait_until(lambda: any(slot.job == job for slot in harness.pool._slots), 20, "the job has begun")
    time.sleep(0.3)
    harness.pool.cancel(job)
    harness.pool.cancel(job)
    assert harness.expect(FailureOutcome, job, timeout=5).kind == "cancelled"
    harness.expect(LoadOutcome, harness.pool.load("e", "digits", partition()))


def test_a_waiting_job_is_cancelled_at_once(harness: PoolHarness, first: CacheModel) -> None:
    running = [train_for_ever(harness) for _ in range(2)]
    waiting = train_for_ever(harness)
    harness.pool.cancel(waiting)
    assert harness.expect(FailureOutcome, waiting, timeout=1).kind == "cancelled"
    for job in running:
        harness.pool.cancel(job)
        harness.expect(FailureOutcome, job)
    harness.pool.cancel(waiting)  # done long ago: nothing happens
    harness.pool.cancel(123_456)


def test_predictions_do_not_wait_behind_training(harness: PoolHarness, first: CacheModel) -> None:
    running = [train_for_ever(harness) for _ in range(3)]
    wait_until(lambda: all(slot.job is not None for slot in harness.pool._slots), 20, "all work")
    ids = [harness.pool.predict("digits", first, SEVEN) for _ in range(50)]
    for job in ids:
        harness.expect(PredictOutcome, job, timeout=10)
    for job in running:
        assert job not in harness.kept
        harness.pool.cancel(job)
        assert harness.expect(FailureOutcome, job).kind == "cancelled"


def test_too_many_waiting_predictions_are_refused(narrow: PoolHarness, first: CacheModel) -> None:
    ids = [narrow.pool.predict("digits", first, SEVEN) for _ in range(200)]
    outcomes = [narrow.result(job) for job in ids]
    refused = [o for o in outcomes if isinstance(o, FailureOutcome)]
    assert refused
    assert all("already waiting" in o.message for o in refused)
    assert any(isinstance(o, PredictOutcome) for o in outcomes)


def test_askers_take_turns(harness: PoolHarness, first: CacheModel, sent: list[protocol.ToWorker]) -> None:
    """One asker's queue does not delay the others: a job waits for those that workers have, and one turn."""
    with harness.pool._lock:  # nothing ends meanwhile
        greedy = [harness.pool.predict("digits", first, SEVEN, "greedy") for _ in range(50)]
        modest = harness.pool.predict("digits", first, SEVEN, "modest")
        given = sum(len(slot.predictions) for slot in harness.pool._slots)
    for job in [*greedy, modest]:
        harness.expect(PredictOutcome, job)
    order = [frame.id for frame in sent if isinstance(frame, protocol.RunJob)]
    assert order == [*greedy[: given + 1], modest, *greedy[given + 1 :]]
    assert given <= 2 * MAX_PREDICTIONS_PER_WORKER, "there are two workers"


def test_the_work_of_a_prediction_is_measured(harness: PoolHarness, first: CacheModel) -> None:
    refused = harness.pool.predict("digits", first, b"?")
    answered = harness.pool.predict("digits", first, SEVEN)
    for job in (refused, answered):
        harness.result(job)
        assert harness.kept[job].seconds > 0


def test_synthetic_work_needs_no_torch() -> None:
    harness = PoolHarness(1, warm=False)
    try:
        loaded = harness.expect(
            LoadOutcome, harness.pool.load("7", "synthetic-1000", partition()), timeout=20
        )
        assert (loaded.examples, loaded.manifest.values) == (1, 1000)
        first = harness.expect(
            TrainOutcome,
            harness.pool.train("7", "synthetic-1000", partition(), None, training_request(), 0),
            timeout=5,
        )
        base = CacheModel(first.digest, first.manifest, first.delta)
        one, same, other = (
            harness.expect(
                TrainOutcome,
                harness.pool.train(client, "synthetic-1000", partition(), base, training_request(), 1),
            )
            for client in ("7", "7", "8")
        )
        assert one.digest == same.digest != other.digest
        delta = np.frombuffer(one.delta.view, "<f4")
        assert 0 < np.abs(delta).max() <= 1e-3
        scores = harness.expect(
            EvaluateOutcome, harness.pool.evaluate("7", "synthetic-1000", "test", None, base)
        )
        assert (scores.examples, scores.loss, scores.task_metrics) == (1, 0.0, {})
        failed = harness.expect(FailureOutcome, harness.pool.predict("synthetic-1000", base, b"?"))
        assert (failed.kind, failed.message) == ("bad-payload", "a synthetic model makes no predictions")
        wrong = harness.expect(
            FailureOutcome, harness.pool.evaluate("7", "synthetic-999", "test", None, base)
        )
        assert "expected 999" in wrong.message
        none = harness.expect(FailureOutcome, harness.pool.load("7", "synthetic-0", None))
        assert none.kind == "unknown-task"
        (pid,) = harness.pids()
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
        # What comes later may need it all the same.
        assert (
            harness.expect(LoadOutcome, harness.pool.load("7", "digits", partition()), timeout=60).examples
            > 0
        )
    finally:
        harness.pool.close()


def test_a_model_is_given_to_a_worker_once(
    harness: PoolHarness, first: CacheModel, sent: list[protocol.ToWorker]
) -> None:
    one = first_model("digits", "once")
    for _ in range(3):
        ids = [harness.pool.evaluate("e", "digits", "test", None, one) for _ in range(2)]
        for job in ids:
            harness.expect(EvaluateOutcome, job)
        harness.expect(PredictOutcome, harness.pool.predict("digits", one, SEVEN))
    assert 1 <= sum(isinstance(frame, CacheModel) for frame in sent) <= 2, "there are two workers"


def test_large_models_are_not_hoarded(narrow: PoolHarness, first: CacheModel) -> None:
    for number in range(8):
        narrow.expect(
            PredictOutcome, narrow.pool.predict("digits", first_model("digits", f"large-{number}"), SEVEN)
        )
    assert [list(slot.models) for slot in narrow.pool._slots] == [["large-6", "large-7"]]
