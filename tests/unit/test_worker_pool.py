"""What worker processes do: real ones, which import torch, train, evaluate and predict."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("torch")

from fl_edge import jobs, pool, training
from fl_edge.jobs import Evaluated, Failed, Initialised, Loaded, Predicted, Trained
from fl_edge.tasks import load_task
from fl_shared.messages import UpdateMetrics
from fl_shared.tensors import Manifest
from tests.unit.boss import SEVEN, Boss, part, settings, train_for_ever

pytestmark = pytest.mark.edge


@pytest.fixture(scope="module")
def boss() -> Iterator[Boss]:
    boss = Boss(2)
    assert boss.pool.wait_ready(60)
    yield boss
    boss.pool.close()


@pytest.fixture(scope="module")
def first(boss: Boss) -> Initialised:
    return boss.expect(Initialised, boss.pool.initial("digits", 0))


# --- what workers do


def test_the_pool_itself_imports_no_torch() -> None:
    code = "import sys, fl_edge.pool; print('torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout == "False\n"


def test_a_part_is_looked_at(boss: Boss, first: Initialised) -> None:
    ids = [boss.pool.load(f"edge-{k}", "digits", part(k)) for k in range(20)]
    loaded = [boss.expect(Loaded, job) for job in ids]
    assert sum(part.examples + part.holdout_examples for part in loaded) == 1438
    assert {part.manifest.digest for part in loaded} == {first.manifest.digest}


def test_without_a_part_only_the_task_is_looked_at(boss: Boss, first: Initialised) -> None:
    loaded = boss.expect(Loaded, boss.pool.load("evaluator", "digits", None))
    assert (loaded.examples, loaded.holdout_examples, loaded.manifest) == (0, 0, first.manifest)


def test_a_worker_trains_to_the_same_bits_as_anyone(boss: Boss, first: Initialised) -> None:
    training.settle_torch()
    task = load_task("digits")
    manifest, weights = training.initial(task, 0)
    assert first.weights == weights.astype("<f4").tobytes()
    ids = [
        boss.pool.train(f"edge-{k}", "digits", part(k), first.weights, first.manifest, settings(), 3)
        for k in (4, 5, 4)
    ]
    trained = [boss.expect(Trained, job) for job in ids]
    for k, update in zip((4, 5, 4), trained, strict=True):
        expected = training.train_update(
            task, task.load(part(k), None), weights, manifest, settings(), 3, f"edge-{k}", lambda: False
        )
        assert update.delta == expected.delta.astype("<f4").tobytes()
        assert (update.examples, update.steps) == (expected.examples, expected.steps)
        assert update.metrics == expected.metrics
        assert update.manifest == manifest


def test_without_a_base_first_weights_are_made(boss: Boss, first: Initialised) -> None:
    update = boss.expect(
        Trained, boss.pool.train("edge-0", "digits", part(), None, None, settings(seed=0), 0)
    )
    assert update.delta == first.weights
    assert (update.steps, update.examples, update.manifest) == (0, 58, first.manifest)


def test_versions_are_evaluated_on_the_test_split_and_on_the_holdout(boss: Boss, first: Initialised) -> None:
    test = boss.pool.evaluate("evaluator", "digits", "test", None, first.weights, first.manifest)
    held = boss.pool.evaluate("edge-0", "digits", "holdout", part(), first.weights, first.manifest)
    none = boss.pool.evaluate("edge-0", "digits", "holdout", part(holdout=0.0), first.weights, first.manifest)
    unnamed = boss.pool.evaluate("edge-0", "digits", "holdout", None, first.weights, first.manifest)
    task = load_task("digits")
    manifest, weights = training.initial(task, 0)
    expected = training.evaluate(task, weights, manifest, task.load_test(None))
    assert boss.expect(Evaluated, test) == Evaluated(359, expected.loss, expected.accuracy, {})
    assert boss.expect(Evaluated, held).examples == 14
    assert "nothing of the part is held out" in boss.expect(Failed, none).message
    assert "no partition" in boss.expect(Failed, unnamed).message


def test_a_prediction_is_answered(boss: Boss, first: Initialised) -> None:
    answer = boss.expect(Predicted, boss.pool.predict("digits", "d0", first.weights, first.manifest, SEVEN))
    task = load_task("digits")
    manifest, weights = training.initial(task, 0)
    expected = task.predict(training.model_from(task, weights, manifest), SEVEN)
    assert answer.probabilities == pytest.approx(expected)
    assert answer.label == max(expected, key=expected.__getitem__)


def test_each_digest_is_a_model_of_its_own_and_the_model_comes_again_when_forgotten(
    boss: Boss, first: Initialised
) -> None:
    vectors = [np.frombuffer(first.weights, "<f4") * np.float32(1 + k / 10) for k in range(8)]
    task = load_task("digits")
    for _ in range(2):
        for k, vector in enumerate(vectors):
            job = boss.pool.predict("digits", f"scaled-{k}", vector.tobytes(), first.manifest, SEVEN)
            expected = task.predict(training.model_from(task, vector.copy(), first.manifest), SEVEN)
            assert boss.expect(Predicted, job).probabilities == pytest.approx(expected)
    for slot in boss.pool._slots:
        assert len(slot.models) <= pool.MODELS_KEPT


# --- what goes wrong


def test_failures_are_of_a_kind(boss: Boss, first: Initialised) -> None:
    other = boss.expect(Initialised, boss.pool.initial("mnist", 0))
    bad = np.full(first.manifest.values, np.nan, "<f4").tobytes()
    cases = [
        (boss.pool.load("e", "nope", part()), "unknown-task", "'nope' is unknown here"),
        (boss.pool.load("e", "digits", part(examples=9999)), "failed", "examples: 9999 asked for"),
        (
            boss.pool.predict("digits", "d0", first.weights, first.manifest, b"?"),
            "bad-payload",
            "neither a PNG",
        ),
        (boss.pool.predict("digits", "d1", other.weights, other.manifest, SEVEN), "failed", "conv1.bias"),
        (boss.pool.predict("digits", "d2", bad, first.manifest, SEVEN), "failed", "not finite"),
        (boss.pool.evaluate("e", "digits", "test", None, b"abc", first.manifest), "failed", "3 bytes"),
        (
            boss.pool.evaluate("e", "digits", "test", None, b"abcd", first.manifest),
            "failed",
            "expected (53002,)",
        ),
        (
            boss.pool.train("e", "digits", part(), first.weights, first.manifest, settings(lr=1e6), 1),
            "failed",
            "diverged",
        ),
    ]
    for job, kind, message in cases:
        failed = boss.expect(Failed, job)
        assert failed.kind == kind, failed
        assert message in failed.message


def test_a_running_job_is_cancelled_within_a_step(boss: Boss, first: Initialised) -> None:
    job = train_for_ever(boss)
    boss.wait_for(lambda: any(slot.job == job for slot in boss.pool._slots))
    time.sleep(0.3)
    boss.pool.cancel(job)
    boss.pool.cancel(job)
    assert boss.expect(Failed, job, timeout=5).kind == "cancelled"
    boss.expect(Loaded, boss.pool.load("e", "digits", part()))


def test_a_waiting_job_is_cancelled_at_once(boss: Boss, first: Initialised) -> None:
    running = [train_for_ever(boss) for _ in range(2)]
    waiting = train_for_ever(boss)
    boss.pool.cancel(waiting)
    assert boss.expect(Failed, waiting, timeout=1).kind == "cancelled"
    for job in running:
        boss.pool.cancel(job)
        boss.expect(Failed, job)
    boss.pool.cancel(waiting)  # done long ago: nothing happens
    boss.pool.cancel(123_456)


def test_predictions_do_not_wait_behind_training(boss: Boss, first: Initialised) -> None:
    running = [train_for_ever(boss) for _ in range(3)]
    boss.wait_for(lambda: all(slot.job is not None for slot in boss.pool._slots))
    ids = [boss.pool.predict("digits", "d0", first.weights, first.manifest, SEVEN) for _ in range(50)]
    for job in ids:
        boss.expect(Predicted, job, timeout=10)
    for job in running:
        assert job not in boss.kept
        boss.pool.cancel(job)
        assert boss.expect(Failed, job).kind == "cancelled"


def test_too_many_waiting_predictions_are_refused(
    boss: Boss, first: Initialised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "PREDICTIONS_WAITING", 5)
    ids = [boss.pool.predict("digits", "d0", first.weights, first.manifest, SEVEN) for _ in range(200)]
    outcomes = [boss.result(job) for job in ids]
    refused = [o for o in outcomes if isinstance(o, Failed)]
    assert refused
    assert all("waiting already" in o.message for o in refused)
    assert any(isinstance(o, Predicted) for o in outcomes)


# --- frames


def test_frames_come_out_as_they_went_in() -> None:
    manifest: Manifest = training.initial(load_task("digits"), 0)[0]
    frames: list[jobs.ToWorker | jobs.FromWorker] = [
        jobs.Do(1, jobs.Load("e", "digits", None)),
        jobs.Do(2, jobs.Train("e", "digits", part(), b"\0\1", manifest, settings(), 7)),
        jobs.Do(3, jobs.Evaluate("e", "digits", "holdout", part(), b"", manifest)),
        jobs.KeepModel("digits", "d", manifest, bytes(range(256))),
        jobs.Cancel(4),
        jobs.Ready(),
        jobs.Done(5, Trained(manifest, b"\xff", 3, 4, 0.5, UpdateMetrics(train={"loss": 0.1})), 0.25),
        jobs.Done(6, Predicted("is", {"is": 0.5, "job": 0.5}), 0.0),
        jobs.Done(7, Failed("bad-payload", "…"), 0.0),
    ]
    stream = io.BytesIO()
    for frame in frames:
        jobs.write_frame(stream, frame)
    stream.seek(0)
    assert [jobs.read_frame(stream) for _ in frames] == frames
    assert jobs.read_frame(stream) is None


def test_a_frame_cut_short_is_the_end() -> None:
    stream = io.BytesIO()
    jobs.write_frame(stream, jobs.Cancel(1))
    whole = stream.getvalue()
    for length in range(len(whole)):
        assert jobs.read_frame(io.BytesIO(whole[:length])) is None
