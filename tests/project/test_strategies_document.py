"""``docs/strategies.md`` names all strategies, and what it shows as a part of one's own is one."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.strategies.presets import PRESETS
from fl_aggregator.aggregation.strategies.testing import check
from fl_aggregator.configuration.settings import Settings
from tests.support import programs
from tests.support.broker import Mosquitto

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
def test_the_part_of_ones_own_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_mosquitto: Mosquitto
) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(source.splitlines()) < 40
    (tmp_path / "lion.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, sys.path)))
    check(importlib.import_module("lion").Lion(lr=0.003))
    assert registry.load(Settings(server_optimizer="lion:Lion:lr=0.003")).state == {"momentum": 0.0}
    prefix = ("--prefix", "strategies/lion")
    own = (
        "--task",
        "synthetic-50",
        "--clients",
        "2",
        "--rounds",
        "2",
        "--grace",
        "0",
        "--server-optimizer",
        "lion:Lion",
    )
    with (
        programs.edges(tmp_path / "edges", shared_mosquitto.url, "0-1", *prefix),
        programs.aggregator(tmp_path, shared_mosquitto.url, *prefix, *own) as run,
    ):
        run.ends_well()
    assert [line["version"] for line in programs.history(tmp_path)] == [1, 2]


def test_the_table_has_all_attacks() -> None:
    from fl_mqtt.simulation.attacks import ATTACKS

    rows = re.findall(
        r"^\| `([\w-]+)` \|", TEXT.partition("## Try an attack")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert sorted(rows[1:] if rows[0] not in ATTACKS else rows) == sorted(ATTACKS)
