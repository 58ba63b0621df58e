"""A worker's result in the encoding of its round."""

from __future__ import annotations

import numpy as np
import pytest

from fl_edge.workers.jobs import JobResult, TrainOutcome
from fl_edge.workers.training_result import ResultBuffer
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.registry import ENCODINGS
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.sections import DELTA, ModelSection, model_digest
from tests.support.builders import partition, training_request
from tests.support.encodings import Float16
from tests.support.fuzz.inline_pool import InlinePool

VALUES = np.array([-1.0, 0.0, 0.25], np.float32)
MANIFEST = Manifest(arrays=(ArraySpec(name="w", shape=(3,)),))


def test_a_worker_copies_its_result_only_to_encode_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODINGS, "f16", Float16())
    result = ResultBuffer()
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
