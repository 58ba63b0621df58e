"""The cells of the learning benchmark: what is run, what has been run, what it costs, and the choice of a rate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import learning_cells as plan
import pytest

from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.configuration.settings import Settings

CELLS = plan.all_cells(0.01)


def line_for(cell: plan.Cell, **more: Any) -> dict[str, Any]:
    return {"cell": cell.name, "seed": cell.seed, "settings": cell.digest, "task": cell.task, **more}


def test_no_cell_is_there_twice() -> None:
    for keys in ([(cell.name, cell.seed) for cell in CELLS], [cell.digest for cell in CELLS]):
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("lr/", 6),
        ("A/", 4 * 5 * 3 + 3 * 3 + 4 * 3),
        ("B/", (5 + 2 * 3 + 4 + 1) * 3),
        ("C/", 2 * 6 * 9 * 3),
        ("S/", 4 * 5 * 3),
        ("D/", 2 * 2 * 4 * 3),
        ("A/iid/fedavg/0", 1),
        ("C/*/none/*", 2 * 9 * 3),
        ("nothing", 0),
    ],
)
def test_a_pattern_selects(pattern: str, count: int) -> None:
    assert len(plan.selected(CELLS, pattern)) == count


def test_the_first_rate_of_a_server_optimizer_is_its_default() -> None:
    for name, rates in plan.SERVER.items():
        optimizer = registry.load(Settings(strategy=name)).optimize
        assert getattr(optimizer, "lr", None) == next(iter(rates), None), name


def test_cells_of_one_seed_are_paired() -> None:
    """The same data, cohorts and first weights: all that differs between two strategies is the strategy."""
    one, other = plan.selected(CELLS, "A/iid/fedavg/1") + plan.selected(CELLS, "A/iid/fednova/1")
    assert {**one.options, "strategy": "fednova"} == other.options


def test_the_seed_of_the_grid_is_no_other_cells() -> None:
    assert {cell.seed for cell in CELLS if not cell.name.startswith("lr/")} == set(plan.SEEDS)
    assert plan.GRID_SEED not in plan.SEEDS


def test_the_digest_follows_every_option() -> None:
    cell = CELLS[-1]
    assert replace(cell, options={**cell.options}).digest == cell.digest
    assert replace(cell, options={**cell.options, "momentum": 0.8}).digest != cell.digest
    assert replace(cell, task="mnist").digest != cell.digest


def test_a_cell_is_done_only_with_a_line_of_its_own_settings() -> None:
    cell = plan.selected(CELLS, "A/iid/fedavg/0")[0]
    at_another_rate = plan.selected(plan.all_cells(0.02), "A/iid/fedavg/0")[0]
    first, second = line_for(cell, last=0.1), line_for(cell, last=0.2)
    assert plan.line_of(cell, [line_for(at_another_rate)]) is None
    assert plan.line_of(cell, [first, second, line_for(at_another_rate)]) == second
    renamed = replace(cell, name="A/iid/mean")
    assert plan.line_of(renamed, [first]) == first, "its settings are the same"


def test_a_rate_is_chosen_only_from_the_whole_grid() -> None:
    grid = plan.selected(CELLS, "lr/")
    lines = [line_for(cell, last=0.5 + 0.1 * (cell.options["lr"] == 0.01)) for cell in grid]
    assert plan.choice(lines[:-1]) is None
    chosen = plan.choice(lines)
    assert chosen is not None
    assert chosen["lr"] == 0.01
    assert plan.chosen_lr(lines) is None
    assert plan.chosen_lr([*lines, chosen]) == 0.01


def test_a_rate_at_which_training_failed_is_the_worst() -> None:
    grid = plan.selected(CELLS, "lr/")
    lines = [line_for(cell, **({"failed": "…"} if cell is grid[0] else {"last": 0.1})) for cell in grid]
    chosen = plan.choice(lines)
    assert chosen is not None
    assert chosen["lr"] != grid[0].options["lr"]


def test_the_estimate_follows_what_was_measured() -> None:
    cell = plan.selected(CELLS, "C/iid/none/fedavg/0")[0]
    lines = [line_for(CELLS[0], seconds=100.0, rounds=20, per_round=10)]
    assert plan.estimated_seconds(cell, lines) == pytest.approx(0.5 * 20 * 20)
    assert plan.estimated_seconds(cell, []) > 0


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400)])
def test_a_budget_is_read(text: str, seconds: float) -> None:
    assert plan.parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "-5m", "5d", "1.2.3m"])
def test_another_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="20m"):
        plan.parse_budget(text)


def test_a_curve_has_what_was_measured_on_the_test_split() -> None:
    def record(version: int, **more: Any) -> dict[str, Any]:
        measured = {"outcome": "committed", "split": "test", "metrics": {"accuracy": 0.5}}
        return {**measured, "version": version, **more}

    history = [
        record(1),
        record(2, metrics=None),
        record(3, split="holdout"),
        record(3, outcome="abandoned"),
        record(4),
    ]
    assert plan.curve_of(history) == [(1, 0.5), (4, 0.5)]


def test_the_last_five_are_of_the_last_versions_that_were_evaluated() -> None:
    curve = [(1, 0.0), (6, 0.7), (7, 0.5), (9, 0.6), (10, 0.6)]
    assert plan.last_five(curve) == {"last": 0.6, "spread": 0.2, "evaluated": 4}
    assert plan.last_five([])["last"] is None
