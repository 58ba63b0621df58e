"""``--serve average:K``: edges evaluate and predict with the mean of the last versions, and train from the newest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from fl_aggregator.tools.report.page import page
from fl_aggregator.tools.report.reading import read_run_report
from tests.support import programs

SEVEN = Path(__file__).parents[2] / "examples" / "seven.png"
RUN = (
    *("--task", "digits-mlp", "--clients", "3", "--rounds", "4", "--epochs", "1"),
    *("--deadline", "120", "--wait", "120"),
)

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges")]


def test_the_mean_is_measured_and_answers_and_training_goes_on_from_the_newest(tmp_path: Path) -> None:
    with programs.simulate(tmp_path / "plain", *RUN) as plain:
        plain.ends_well()
    with programs.simulate(tmp_path / "mean", *RUN, "--serve", "average:3", "--predict", str(SEVEN)) as mean:
        mean.ends_well()
    assert mean.result["model_sha256"] == plain.result["model_sha256"], "serving changes no training"
    assert "with the mean of versions 2–4 of the model" in mean.out
    assert "(test, the mean of versions 2–4)" in mean.out

    directory = tmp_path / "mean" / "run"
    versions = [load_file(directory / "checkpoints" / f"version-{n:06d}.safetensors") for n in (2, 3, 4)]
    served = load_file(directory / "served.safetensors")
    for name, array in served.items():
        expected = np.add.reduce([one[name].astype(np.float64) for one in versions]) / 3
        assert np.array_equal(array, expected.astype(np.float32)), name
    lines = programs.history(tmp_path / "mean")
    assert [line["first_served"] for line in lines] == [None, 1, 1, 2]
    with safe_open(directory / "served.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["metrics"]) == lines[-1]["metrics"]
    plain_lines = programs.history(tmp_path / "plain")
    assert [line["edges_version"] for line in plain_lines] == [0, 1, 2, 4], "at the end of the last version"
    assert [set(line["edges"]) for line in (plain_lines[-1], lines[-1])] == [{"0", "1", "2"}] * 2
    assert mean.result["worst"] == min(lines[-1]["edges"].values())
    assert lines[-1]["edges"] != plain_lines[-1]["edges"], "another model was measured"
    assert all(line["split"] == "test" for line in lines)
    assert lines[0]["metrics"]["loss"] == plain_lines[0]["metrics"]["loss"]
    assert lines[-1]["metrics"]["loss"] != plain_lines[-1]["metrics"]["loss"], "another model was measured"
    html = page([read_run_report(directory)])
    assert "Each version was measured as the mean of the last ones (--serve average:3)." in html
    assert "the mean of versions 2–4" in html
