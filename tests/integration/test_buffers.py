"""Buffers, such as BatchNorm's running variances, follow the scale of the data."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.support import programs, rogue_tasks

pytestmark = [pytest.mark.broker, pytest.mark.edge]


@pytest.mark.long
def test_a_model_with_batch_norm_trains_on_unnormalised_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rogue_tasks.install_tasks(tmp_path, monkeypatch, {"pressure": "tests.support.unnormalised_task:Pressure"})
    run = programs.simulate(
        tmp_path, "--task", "pressure", "--clients", "2", "--rounds", "2", "--epochs", "5", "--lr", "0.1", "--momentum",
        "0",
    )  # fmt: skip
    with run:
        run.ends_well()
    assert [line["participants"] for line in programs.history(tmp_path)] == [["0", "1"]] * 2
    model = load_file(tmp_path / "run" / "model.safetensors")
    assert (model["0.running_mean"] > 50_000).all()
    assert (model["0.running_var"] > 100_000).all()
