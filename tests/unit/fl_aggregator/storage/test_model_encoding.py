"""Models that are published in bf16, while the run's own weights stay float32 (protocol, 3.8)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fl_aggregator.storage.checkpoint import Checkpoints, Model
from fl_shared.errors import RunFailed
from fl_shared.tensors.encodings.section import SectionFormat, decoded
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.transfer.publication import TransferError, check_manifest, model_publication

MANIFEST = Manifest(arrays=(ArraySpec(name="w", shape=(300,)),))
WEIGHTS = np.linspace(-1, 1, 300, dtype=np.float32)
MODEL = Model.of(MANIFEST, WEIGHTS, encoding="bf16")


def test_3_8_the_digest_is_that_of_what_is_published() -> None:
    rounded = decoded(SectionFormat.of("bf16", MANIFEST).values_in(MODEL.section().data))
    assert not np.array_equal(rounded, WEIGHTS)
    assert Model.of(MANIFEST, rounded, encoding="bf16").digest == MODEL.digest
    assert Model.of(MANIFEST, WEIGHTS).digest != MODEL.digest
    assert len(MODEL.section().data) == 600
    assert model_publication([MODEL.section()], 1024).digest == MODEL.digest
    assert MODEL.published_in("f32").digest == Model.of(MANIFEST, WEIGHTS).digest


def test_a_checkpoint_has_the_float32_weights(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.begin_writing()
    checkpoints.write(1, MODEL)
    found = checkpoints.read(1, MODEL.digest)
    assert (found.digest, found.encoding) == (MODEL.digest, "bf16")
    assert found.weights.tobytes() == WEIGHTS.tobytes()


def test_a_damaged_bit_that_is_not_published_is_found(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.begin_writing()
    checkpoints.write(1, MODEL)
    path = checkpoints.version_path(1)
    data = bytearray(path.read_bytes())
    data[-4] ^= 1  # the lowest bit of the last weight
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(RunFailed, match="content in its metadata does not match the weights"):
        checkpoints.read(1, MODEL.digest)


def test_3_8_a_small_model_must_not_become_a_large_one() -> None:
    message = model_publication([MODEL.section()], 1024).manifest(run="R", incarnation=1, seq=0)
    check_manifest(message, max_bytes=1200)
    with pytest.raises(
        TransferError, match="section 'weights': 1200 bytes as float32, expected at most 1199"
    ):
        check_manifest(message, max_bytes=1199)
