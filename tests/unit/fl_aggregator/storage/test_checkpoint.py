"""Models on disk."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save

from fl_aggregator.storage.checkpoint import (
    MAX_CHECKPOINTS,
    Checkpoints,
    Model,
    model_sha256,
    read_safetensors,
)
from fl_aggregator.storage.disk_space import DiskFull
from fl_shared.errors import RunFailed, UserError
from fl_shared.system.files import is_temporary
from fl_shared.tensors.manifest import Vector, flatten, manifest_of, unflatten


def model(seed: int = 0, buffers: tuple[str, ...] = ()) -> Model:
    chance = np.random.default_rng(seed)
    arrays: dict[str, Vector] = {
        "conv.weight": chance.normal(size=(4, 3, 2)).astype("<f4"),
        "bn.running_mean": chance.normal(size=(3,)).astype("<f4"),
        "größe": np.array(chance.normal(), "<f4"),
    }
    manifest = manifest_of(arrays, buffers)
    return Model.of(manifest, flatten(arrays, manifest))


def opened(directory: Path, *, sync: bool = False) -> Checkpoints:
    checkpoints = Checkpoints(directory, sync=sync)
    checkpoints.begin_writing()
    return checkpoints


@pytest.mark.parametrize("buffers", [(), ("bn.running_mean",)])
def test_the_file_is_what_the_safetensors_library_writes_and_reads(
    tmp_path: Path, buffers: tuple[str, ...]
) -> None:
    made = model(buffers=buffers)
    checkpoints = opened(tmp_path)
    checkpoints.write(1, made)
    arrays = {name: np.array(a) for name, a in unflatten(made.weights, made.manifest).items()}
    # The library writes metadata in any order, so only one key is compared. Buffers are part of the model.
    metadata = {"buffers": '["bn.running_mean"]'} if buffers else None
    assert model_sha256(checkpoints.model_path) == hashlib.sha256(save(arrays, metadata=metadata)).hexdigest()
    assert checkpoints.model_path.read_bytes()[-len(made.data) :] == bytes(made.data)
    read = load_file(checkpoints.model_path)
    assert {name: read[name].tolist() for name in read} == {name: arrays[name].tolist() for name in arrays}
    again = read_safetensors(checkpoints.model_path)
    assert again.digest == made.digest
    assert again.manifest == made.manifest


def test_equal_models_have_equal_digests_whatever_their_metadata(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.write(1, model())
    first = model_sha256(checkpoints.model_path)
    checkpoints.write(2, model(1))
    assert model_sha256(checkpoints.model_path) != first
    checkpoints.write(3, model(), {"task": "digits"})
    assert model_sha256(checkpoints.model_path) == first
    checkpoints.write(4, model(buffers=("bn.running_mean",)))
    assert model_sha256(checkpoints.model_path) != first


def test_the_metrics_come_into_the_newest_and_the_best_model(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    for number in (1, 2):
        checkpoints.write(number, model(number), {"task": "digits", "settings": "abc"})
        if number == 1:
            checkpoints.store_best(number)
    for _ in range(2):  # a run may be killed in between, and resumed
        checkpoints.add_metrics({1: {"loss": 0.5, "accuracy": 0.25}})
    digests = {checkpoints.best_path: model(1).digest, checkpoints.model_path: model(2).digest}
    for path, digest in digests.items():
        assert read_safetensors(path).digest == digest
    assert metadata_of(checkpoints.best_path) == {
        "task": "digits",
        "settings": "abc",
        "version": "1",
        "buffers": "[]",
        "metrics": '{"accuracy": 0.25, "loss": 0.5}',
    }
    assert metadata_of(checkpoints.model_path)["metrics"] == "{}"
    assert "metrics" not in metadata_of(checkpoints.version_path(2))


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata())


def test_old_checkpoints_go_and_the_best_stays(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    for number in range(1, 8):
        checkpoints.write(number, model(number))
        if number == 2:
            assert checkpoints.store_best(2)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [f"version-{number:06d}.safetensors" for number in range(8 - MAX_CHECKPOINTS, 8)]
    assert read_safetensors(checkpoints.best_path).digest == model(2).digest
    assert read_safetensors(checkpoints.model_path).digest == model(7).digest
    assert not checkpoints.store_best(1)


def test_the_same_version_twice_leaves_no_temporary_file(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.write(1, model())
    for _ in range(2):
        checkpoints.drop_after(1)
        assert checkpoints.store_best(1)
    assert not any(is_temporary(path.name) for path in tmp_path.iterdir())


def test_a_model_may_lie_in_its_file(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    made = model()
    checkpoints.write(1, made)
    mapped = checkpoints.memory_mapped(1, made)
    assert mapped.weights.tolist() == made.weights.tolist()
    assert bytes(mapped.data) == bytes(made.data)


def test_a_version_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = model(buffers=("bn.running_mean",))
    opened(tmp_path).write(7, made)
    read = Checkpoints(tmp_path).read(7, made.digest)
    assert (read.manifest, read.digest) == (made.manifest, made.digest)
    assert read.weights.tolist() == made.weights.tolist()


@pytest.mark.parametrize("content", [None, b"", b"junk"])
def test_a_version_that_is_gone_or_damaged_ends_the_run(tmp_path: Path, content: bytes | None) -> None:
    checkpoints = opened(tmp_path)
    if content is not None:
        checkpoints.version_path(7).write_bytes(content)
    with pytest.raises(
        RunFailed, match=r"version-000007\.safetensors: (is missing|not a readable safetensors)"
    ):
        checkpoints.read(7, "a" * 64)


def test_another_model_than_the_journal_names_ends_the_run(tmp_path: Path) -> None:
    """One flipped bit is a readable file, and another model."""
    checkpoints, good = opened(tmp_path), model()
    checkpoints.write(7, good)
    assert checkpoints.read(7, good.digest).digest == good.digest
    path = checkpoints.version_path(7)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    expected = (
        rf"version-000007\.safetensors: is not the model in the journal .*expected {good.digest[:12]}\)"
    )
    with pytest.raises(RunFailed, match=expected):
        checkpoints.read(7, good.digest)


@pytest.mark.parametrize("sync", [False, True])
def test_synced_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool) -> None:
    """The checkpoint and its name; ``model.safetensors`` is made again when the run is resumed."""
    synced = []

    def fsync(file: int) -> None:
        path = Path(f"/proc/self/fd/{file}").readlink()
        synced.append("temporary" if is_temporary(path.name) else str(path))
        real(file)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    checkpoints = opened(tmp_path, sync=sync)
    checkpoints.write(1, model())
    assert synced == (["temporary", str(checkpoints.version_path(1).parent)] if sync else [])


def test_a_full_disk_leaves_the_version_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.write(1, model(1))

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for owner, place in ((Path, "replace"), (os, "open")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, place, full)
            with pytest.raises(DiskFull, match="checkpoints: needs 112 bytes"):
                checkpoints.write(2, model(2))
        assert read_safetensors(checkpoints.model_path).digest == model(1).digest
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["version-000001.safetensors"]
    checkpoints.write(2, model(2))
    assert read_safetensors(checkpoints.model_path).digest == model(2).digest


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 100, (2**40).to_bytes(8, "little") + b"{}"])
def test_what_is_no_model_is_the_users_mistake(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"file\.safetensors"):
        read_safetensors(path)


def test_first_weights_must_be_finite_floats(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(save({"a": np.array([1.0, np.nan], np.float32)}))
    with pytest.raises(UserError, match="'a' contains a value that is not finite"):
        read_safetensors(path)
    path.write_bytes(save({"a": np.array([1, 2])}))
    with pytest.raises(UserError, match="int64"):
        read_safetensors(path)
