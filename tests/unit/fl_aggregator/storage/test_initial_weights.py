"""What ``--init`` names: a model of ours, or a plain ``state_dict`` whose roles an edge's model decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.server import launch
from fl_aggregator.storage import run_directory
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.initial_weights import PlainWeights, read_again, read_initial_weights
from fl_shared.errors import UserError
from fl_shared.tensors.manifest import ArraySpec, Manifest

STATE = {
    "bn.num_batches_tracked": np.array(7),
    "bn.running_mean": np.array([1.0, 2.0], np.float16),
    "fc.weight": np.array([[3.0, 4.0]], np.float64),
}
MANIFEST = Manifest(
    arrays=(
        ArraySpec(name="bn.running_mean", shape=(2,), role="buffer"),
        ArraySpec(name="fc.weight", shape=(1, 2)),
    )
)


def plain(path: Path) -> PlainWeights:
    save_file(STATE, path)
    read = read_initial_weights(path, "digits")
    assert isinstance(read, PlainWeights)
    return read


def test_a_plain_file_takes_the_roles_of_the_edges_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert plain(tmp_path / "plain.safetensors").fit(MANIFEST).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert "plain.safetensors: not in the run: bn.num_batches_tracked" in caplog.text


def test_a_file_of_ours_has_its_roles_unless_it_is_of_another_task(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    floats = {name: array for name, array in STATE.items() if array.dtype.kind == "f"}
    save_file(floats, path, {"buffers": '["bn.running_mean"]', "task": "digits"})
    read = read_initial_weights(path, "digits")
    assert isinstance(read, Model)
    assert read.manifest == MANIFEST
    assert isinstance(read_initial_weights(path, "mnist"), PlainWeights)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("fc.weight", (2, 1), r"array 'fc.weight' has the shape \(1, 2\), but \(2, 1\) in the edges' model"),
        (
            "fc.wait",
            (1, 2),
            r"no floating-point array 'fc.wait', which has the shape \(1, 2\) in the edges' model \(it has .*fc.weight",
        ),
        (
            "bn.num_batches_tracked",
            (),
            r"no floating-point array 'bn.num_batches_tracked', which has the shape \(\)",
        ),
    ],
)
def test_the_first_array_that_differs_is_named(
    tmp_path: Path, name: str, shape: tuple[int, ...], said: str
) -> None:
    manifest = Manifest(arrays=(ArraySpec(name=name, shape=shape), ArraySpec(name="zzz", shape=(9,))))
    with pytest.raises(UserError, match=rf"--init .*plain.safetensors: .*{said}"):
        plain(tmp_path / "plain.safetensors").fit(manifest)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.array([np.nan])}, "'a' contains a value that is not finite"),
        ({"a": np.array([1])}, "no floating-point array"),
    ],
)
def test_unusable_values_are_said_before_the_run(
    tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    save_file(arrays, tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match=said):
        read_initial_weights(tmp_path / "plain.safetensors", "digits")


def test_a_run_that_is_resumed_before_its_first_version_reads_the_file_again(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    sha256 = plain(path).sha256
    begun = launch.new(Settings(task="digits", clients=2), tmp_path / "run", path)
    assert begun.first_weights is None
    begun.directory.write_run(begun.record)
    begun.close()
    record = run_directory.read_run(tmp_path / "run").plain_weights
    assert record is not None
    assert (record.path, record.sha256) == (path, sha256)
    resumed = launch.resume(tmp_path / "run", simulated=False)
    assert resumed.plain_weights is not None
    resumed.close()
    save_file({**STATE, "more": np.zeros(1)}, path)
    with pytest.raises(UserError, match="has changed since the run began"):
        launch.resume(tmp_path / "run", simulated=False)
    with pytest.raises(UserError, match="not a readable safetensors file"):
        read_again(tmp_path / "gone", "digits", sha256)
