"""``images`` over a real broker, a folder for each site."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import programs
from tests.support.picture_folders import fill

pytestmark = [pytest.mark.broker, pytest.mark.edge]


@pytest.mark.long
def test_sites_of_pictures_train_and_answer(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for seed, site in enumerate(("a", "b", "test")):
        fill(data / site, "red", "green", "blue", count=10, seed=seed)
    run = programs.simulate(
        tmp_path, "--task", "images", "--task-option", "side=16", "--data", str(data), "--partition", "natural",
        "--clients", "2", "--per-round", "2", "--rounds", "3", "--epochs", "10", "--lr", "0.02",
        "--predict", str(data / "test" / "green" / "0.png"),
    )  # fmt: skip
    with run:
        run.ends_well()
    lines = programs.history(tmp_path)
    assert [line["participants"] for line in lines] == [["0", "1"]] * 3
    assert lines[-1]["metrics"]["accuracy"] > 0.8
    assert "prediction: green" in run.out
    assert lines[-1]["confusion"]["labels"] == ["blue", "green", "red"]


def test_a_folder_that_is_no_class_ends_the_edge_in_one_line(tmp_path: Path) -> None:
    fill(tmp_path / "data", "red", "green")
    task = "images?classes=red%2Cblue"
    with programs.edges(
        tmp_path, "mqtt://127.0.0.1:1", "0", "--task", task, "--data", str(tmp_path / "data")
    ) as edge:
        assert edge.wait() == 2
    words = "green: is no folder of a class, expected one of: red, blue"
    assert [words in line for line in edge.err.splitlines() if "green" in line] == [True]
    assert "Traceback" not in edge.err
