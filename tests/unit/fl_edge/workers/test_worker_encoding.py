"""A worker's result in the encoding of its round."""

from __future__ import annotations

import numpy as np
import pytest

from fl_edge.training.executor import TrainedUpdate
from fl_edge.workers.jobs import JobResult, TrainJob, TrainOutcome
from fl_edge.workers.training_result import ERROR, ResultBuffer, train_outcome
from fl_shared.protocol.messages import UpdateMetrics
from fl_shared.system.shared_memory import MemoryPool
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.registry import ENCODINGS
from fl_shared.tensors.encodings.section import SectionFormat, decoded
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.sections import DELTA, ModelSection, model_digest
from tests.support.builders import partition, training_request
from tests.support.encodings import Float16
from tests.support.fuzz.inline_pool import InlinePool

VALUES = np.array([-1.0, 0.0, 0.25], np.float32)
MANIFEST = Manifest(arrays=(ArraySpec(name="w", shape=(3,)),))


def test_a_worker_copies_its_result_only_to_encode_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODINGS, "f16", Float16())
    result = ResultBuffer(MemoryPool())
    result.allocate(3)[:] = VALUES
    assert result.encoded(SectionFormat.of("f32", MANIFEST), seed=0) is result.memory
    assert FLOAT32.decode(result.memory.view).tobytes() == VALUES.tobytes()
    half = result.encoded(SectionFormat.of("f16", MANIFEST), seed=0)
    assert half.size == 6
    assert np.array_equal(Float16().decode(half.view), VALUES)


def test_a_worker_trains_in_the_encoding_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODINGS, "f16", Float16())
    results: list[JobResult] = []
    pool = InlinePool(results.append)
    for encoding in ("f32", "f16"):
        pool.train("7", "synthetic-1000", partition(), None, training_request(), 0, encoding)
    pool.close()
    exact, half = [result.outcome for result in results]
    assert isinstance(exact, TrainOutcome)
    assert isinstance(half, TrainOutcome)
    assert (exact.encoding, exact.delta.size, half.encoding, half.delta.size) == ("f32", 4000, "f16", 2000)
    rounded = FLOAT32.decode(exact.delta.view).astype(np.float16)
    assert half.delta.view == rounded.tobytes()
    assert half.digest == model_digest([ModelSection(DELTA, half.manifest, half.delta.view, "f16")])


def trained(delta: list[float], error: np.ndarray | None, encoding: str = "topk:0.5") -> TrainOutcome:
    """What a worker makes of a training with this delta, and of what was lost before."""
    manifest = Manifest(arrays=(ArraySpec(name="w", shape=(4,)),))
    result = ResultBuffer(MemoryPool())
    result.allocate(4)[:] = delta
    job = TrainJob("7", "digits", partition(), "b" * 64, training_request(), 1, encoding)
    return train_outcome(
        job, manifest, result, TrainedUpdate(result.vector, 1, 1, 0.0, UpdateMetrics()), error
    )


def sent_and_kept(outcome: TrainOutcome) -> tuple[np.ndarray, np.ndarray]:
    assert outcome.own is not None
    form = SectionFormat.of(outcome.encoding, outcome.manifest)
    return decoded(form.values_in(outcome.delta.view)), FLOAT32.decode(outcome.own.parts()[ERROR]).copy()


def test_3_10_what_is_sent_and_what_is_kept_add_up_to_the_deltas() -> None:
    generator = np.random.default_rng(3)
    error, total, arrived = None, np.zeros(4, np.float32), np.zeros(4, np.float32)
    for _ in range(20):
        delta = (generator.integers(-999, 999, 4) / 64).astype(np.float32)  # sums of them are exact
        sent, error = sent_and_kept(trained(delta.tolist(), error))
        total, arrived = total + delta, arrived + sent
        assert np.count_nonzero(sent) <= 2
        assert ((sent == 0) | (error == 0)).all()
    assert error is not None
    assert np.array_equal(arrived + error, total)


def test_3_10_a_training_that_is_repeated_has_the_same_bytes() -> None:
    error = np.array([0.5, 0.0, -0.25, 0.0], np.float32)
    first, again = (trained([1.0, 2.0, -3.0, 0.5], error.copy()) for _ in range(2))
    assert first.digest == again.digest
    assert first.digest != trained([1.0, 2.0, -3.0, 0.5], None).digest


@pytest.mark.parametrize("encoding", ["f32", "bf16", "q8"])
def test_an_encoding_without_feedback_keeps_nothing(encoding: str) -> None:
    error = np.ones(4, np.float32)
    outcome = trained([1.0, 2.0, -3.0, 0.5], error, encoding)
    assert outcome.own is None
    assert outcome.digest == trained([1.0, 2.0, -3.0, 0.5], None, encoding).digest
