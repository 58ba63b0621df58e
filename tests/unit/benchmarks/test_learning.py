"""The learning benchmark goes on where it ended, keeps to its budget, says what it leaves out. Nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.edge
learning = pytest.importorskip("learning")
plan = pytest.importorskip("learning_cells")

GRID = [f"lr/{partition}/{rate:g}/9" for partition in plan.GRID_PARTITIONS for rate in plan.GRID]


class Runs:
    """Stands in for the runs: notes which cells were run, and answers with their line."""

    def __init__(self) -> None:
        self.cells: list[str] = []

    def __call__(self, cell: Any, *_of_edges: object) -> dict[str, Any]:
        self.cells.append(f"{cell.name}/{cell.seed}")
        return {"cell": cell.name, "seed": cell.seed, "settings": cell.digest, "last": 0.5, "task": cell.task,
                "rounds": 10, "per_round": 10, "seconds": 100.0}  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    stand_in = Runs()
    path = tmp_path / "results" / "learning.jsonl"
    read, write = learning.read_lines, learning.write_line
    monkeypatch.setattr(learning, "run", stand_in)
    monkeypatch.setattr(learning, "read_lines", lambda: read(path))
    monkeypatch.setattr(learning, "write_line", lambda line: write(line, path))
    monkeypatch.setattr(learning, "missing_data", lambda *_: None)
    return stand_in


def benchmark(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["learning.py", *arguments])
    learning.main()


def test_it_goes_on_where_it_ended(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark(monkeypatch, "--only", "lr/")
    assert runs.cells == GRID
    benchmark(monkeypatch, "--only", "lr/")
    assert len(runs.cells) == len(GRID)
    assert learning.read_lines()[-1]["lr"] == plan.GRID[0]
    benchmark(monkeypatch, "--only", "A/iid/fedavg/*")
    assert runs.cells[len(GRID) :] == [f"A/iid/fedavg/{seed}" for seed in plan.SEEDS]


def test_the_grid_comes_first(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="--only lr/"):
        benchmark(monkeypatch, "--only", "A/iid/fedavg")
    assert runs.cells == []


def test_no_cell_is_begun_that_would_pass_the_budget(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark(monkeypatch, "--only", "lr/")
    benchmark(monkeypatch, "--only", "A/iid/fedavg", "--budget", "499s")  # by its lines, a cell takes 500 s
    assert len(runs.cells) == len(GRID)
    assert "would pass the budget" in capsys.readouterr().err


def test_a_cell_whose_option_is_not_there_is_left_out_and_said(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = plan.Cell(
        "A/x",
        0,
        "small-fashion",
        {"strategy": "telepathy:x=1", "mind": 1, "lr": 0.1, "rounds": 1, "per_round": 1},
    )
    assert learning.lacking(cell) == "this fl-mqtt has no option mind, no strategy telepathy"
    monkeypatch.setattr(
        plan, "all_cells", lambda *_: [cell, plan.Cell("A/y", 0, cell.task, {**cell.options, "mind": 2})]
    )
    benchmark(monkeypatch)
    assert runs.cells == []
    assert capsys.readouterr().err.count("no option mind") == 1
    benchmark(monkeypatch, "--list")
    assert "no option mind" in capsys.readouterr().out


def test_a_cell_that_this_version_refuses_does_not_end_the_others(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse_first(cell: Any, *of_edges: object) -> dict[str, Any]:
        if not runs.cells:
            runs.cells.append("refused")
            raise learning.UserError("--attack 'x': expected another kind")
        return runs(cell, *of_edges)

    monkeypatch.setattr(learning, "run", refuse_first)
    benchmark(monkeypatch, "--only", "lr/")
    assert runs.cells == ["refused", *GRID[1:]]
    assert "left out: --attack 'x'" in capsys.readouterr().err


def test_a_pattern_of_no_cell_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        benchmark(monkeypatch, "--only", "nothing")
    assert "--only 'nothing'" in capsys.readouterr().err


def test_every_cell_that_can_be_run_has_settings_that_are_right() -> None:
    from fl_aggregator.aggregation.strategies import registry
    from fl_aggregator.configuration.settings import Settings

    cells = [cell for cell in plan.all_cells(0.01) if learning.lacking(cell) is None]
    assert len(cells) > 100
    for cell in cells:
        options = {name: value for name, value in cell.options.items() if name in Settings.model_fields}
        registry.load(Settings(**options))


def test_missing_data_is_said_in_one_line(tmp_path: Path) -> None:
    said = learning.missing_data("mcmahan-mnist", tmp_path)
    assert "scripts.fetch_data mnist" in said
    assert "\n" not in said


def test_the_small_network_has_the_parameters_that_the_document_says() -> None:
    import torch

    torch.manual_seed(0)
    sizes = {
        name: sum(p.numel() for p in task().model(0).parameters()) for name, task in learning.TASKS.items()
    }
    assert sizes["small-fashion"] == 20_522
    assert sizes["mcmahan-mnist"] == 1_663_370
