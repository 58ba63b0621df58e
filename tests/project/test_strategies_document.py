"""``docs/strategies.md`` names all strategies, and what it shows as a part of one's own is one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.strategies.presets import PRESETS
from fl_aggregator.aggregation.strategies.testing import check
from fl_aggregator.configuration.settings import Settings
from tests.support import programs

TEXT = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")


def test_the_table_has_all_strategies() -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \| (.*?) \|", TEXT.partition("\n## ")[0], re.MULTILINE)
    names = [name for row, *_ in rows[1:] for name in re.findall(r"`([\w-]+)`", row)]
    assert sorted(names) == sorted(PRESETS)
    for row, combine, optimize, paper in rows[1:]:
        for name in re.findall(r"`([\w-]+)`", row):
            assert f"`{PRESETS[name].combine.partition(':keep')[0]}`" in (combine, f"`{name}`"), name
            assert f"`{PRESETS[name].optimize}`" in optimize, name
            assert PRESETS[name].paper == paper, name
            assert f"`{PRESETS[name].correct or PRESETS[name].optimize}`" in optimize, name


def test_the_protocol_says_what_an_update_weighs_in_each_sum() -> None:
    """Clause 5.10; `tests.property.test_strategies` has the same formulas."""
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    clause = text.partition("- **5.10**")[2].partition("- **5.11**")[0]
    rows = re.findall(r"^  \| `([\w-]+)", clause, re.MULTILINE)
    classes = {name: registry.part_class("combine", name) for name in registry.names("combine")}
    assert set(rows) == {name for name, part in classes.items() if hasattr(part, "divisor")}
    for part in classes.values():
        if hasattr(part, "divisor"):
            assert all(
                f"`{field}`" in clause or field in ("equal", "q") for field in registry.fields_of(part)
            )


@pytest.mark.broker
@pytest.mark.parametrize(("module", "state"), [("lion", {"momentum": 0.0}), ("midhinge", {})])
def test_the_parts_of_ones_own_train(
    module: str, state: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the document says it: with the module in the current directory."""
    (source,) = re.findall(rf"```python\n((?:(?!```).)*)```\n\nWith this in `{module}.py`", TEXT, re.DOTALL)
    (option,) = re.findall(rf"With this in `{module}.py`, `(.*?)` uses it", TEXT)
    assert len(source.splitlines()) < 40
    (tmp_path / f"{module}.py").write_text(source)
    run = ("--task", "synthetic-50", "--clients", "4", "--rounds", "2", "--run-dir", "run")
    simulated = programs.run("fl-aggregator", "simulate", *run, *option.split(), cwd=tmp_path)
    assert simulated.returncode == 0, simulated.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    kind, specification = option.split()[:2]
    assert specification.startswith(record["strategy_parts"][kind.removeprefix("--")]["part"])
    made = programs.history(tmp_path)
    assert [line["version"] for line in made] == [1, 2]
    assert all(line["strategy"]["numbers"]["change_norm"] > 0 for line in made)

    monkeypatch.syspath_prepend(tmp_path)
    strategy = registry.load(
        Settings(**{kind.removeprefix("--").replace("-", "_"): specification, "quorum": 4})
    )
    assert strategy.state == state
    check(strategy.combine if kind == "--combine" else strategy.optimize)


def test_the_table_has_all_attacks() -> None:
    from fl_mqtt.simulation.attacks import ATTACKS

    rows = re.findall(
        r"^\| `([\w-]+)` \|", TEXT.partition("## Try an attack")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert sorted(rows[1:] if rows[0] not in ATTACKS else rows) == sorted(ATTACKS)
