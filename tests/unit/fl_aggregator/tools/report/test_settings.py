"""The settings in a report: the options of a run and the resolved parts of its strategy, listed and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="pip install 'fl-mqtt[report]'")

from fl_aggregator.aggregation.strategies.registry import describe, load
from fl_aggregator.configuration.settings import Settings, options_of_run, parse_settings
from fl_aggregator.tools.report.comparison import settings_that_differ
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.settings import setting_text, settings_of, strategy_parts
from tests.support.run_files import SETTINGS, Outline, line, page_of, write

pytestmark = pytest.mark.usefixtures("undrawn")


def recorded(**options: Any) -> dict[str, Any]:
    """What ``run.json`` has of a run with these options."""
    settings = parse_settings(**{"clients": 4, "rounds": 3, **options})
    whole = {"settings": settings.model_dump(mode="json"), "strategy_parts": describe(load(settings))}
    made: dict[str, Any] = json.loads(json.dumps(whole))
    return made


def with_server_rate(rate: float) -> dict[str, Any]:
    """The run of ``--strategy fedavgm`` if the default of its rate were this one."""
    record = recorded(strategy="fedavgm")
    record["strategy_parts"]["server-optimizer"]["lr"] = rate
    return record


def report_of(record: dict[str, Any]) -> RunReport:
    return RunReport(Path("run"), "run", record)


def listed(page: str) -> dict[str, str]:
    """The settings that a page of one run lists, each with its value."""
    words = [word for word in page.split("\n") if word]
    words = words[len(words) - 1 - words[::-1].index("Settings") + 1 :]
    return dict(zip(words[::2], words[1::2], strict=False))


def test_runs_that_differ_in_a_default_of_their_strategy_are_told_apart(tmp_path: Path) -> None:
    runs = [
        write(tmp_path / name, [line(1)], record=with_server_rate(rate))
        for name, rate in (("old", 1.0), ("new", 0.1))
    ]
    page = Outline(page_of(tmp_path, *runs)).text
    assert "All settings are the same." not in page
    differ = page[page.index("Settings that differ") : page.index("on its own")].split("\n")
    values = [text for text in differ if text.startswith("sgd: ")]
    assert values == ["sgd: lr 1, momentum 0.9", "sgd: lr 0.1, momentum 0.9"]
    assert "strategy" not in differ, "that is the same"


def test_runs_with_the_same_settings_are_said_to_have_them(tmp_path: Path) -> None:
    runs = [write(tmp_path / name, [line(1)], record=with_server_rate(0.1)) for name in "ab"]
    assert "All settings are the same." in Outline(page_of(tmp_path, *runs)).text


@pytest.mark.parametrize(
    ("one", "other"), [(0.1, 0.1 + 2**-40), (1e22, 1e22 + 2**22), (1, True), (None, 0.0)]
)
def test_values_that_differ_have_texts_that_differ(one: Any, other: Any) -> None:
    runs = [report_of(with_server_rate(rate)) for rate in (one, other)]
    assert [name for name, _ in settings_that_differ(runs)] == ["server_optimizer"]


def test_the_parts_of_the_strategy_are_listed_once_with_all_their_fields(tmp_path: Path) -> None:
    record = recorded(strategy="fedavgm:lr=0.3", transform=("clip:norm=10",), correct=("prox:mu=0.5",))
    page = Outline(page_of(tmp_path, write(tmp_path / "run", [line(1, confusion=None)], record=record))).text
    shown = listed(page)
    assert {
        name: shown[name] for name in ("strategy", "combine", "server-optimizer", "transform", "correct")
    } == {
        "strategy": "fedavgm:lr=0.3",
        "combine": "mean: equal false",
        "server-optimizer": "sgd: lr 0.3, momentum 0.9",
        "transform": "clip: norm 10",
        "correct": "prox: mu 0.5",
    }
    words = page.split("\n")
    assert [words.count(name) for name in ("server-optimizer", "transform", "correct")] == [1, 1, 1]
    assert "strategy-parts" not in words


def test_a_part_of_another_package_is_named_by_its_class() -> None:
    part = {"part": "elsewhere.parts:Halved", "lr": 0.5}
    run = report_of(
        {"settings": SETTINGS, "strategy_parts": {"server-optimizer": part, "transform": [part, part]}}
    )
    assert strategy_parts(run) == {
        "server_optimizer": "elsewhere.parts:Halved: lr 0.5",
        "transform": "elsewhere.parts:Halved: lr 0.5; elsewhere.parts:Halved: lr 0.5",
    }


def test_without_the_parts_the_options_are_listed(tmp_path: Path) -> None:
    record = recorded(strategy="fedavgm")
    del record["strategy_parts"]
    page = Outline(page_of(tmp_path, write(tmp_path / "run", [line(1)], record=record))).text
    assert listed(page)["server-optimizer"] == "the strategy's"


@pytest.mark.parametrize(
    "parts",
    [
        7,
        [],
        {"combine": 7},
        {"combine": {"part": []}},
        {"transform": {"x": 10**400}},
        {"transform": [None, [[]]]},
        {"correct": {"part": "<i>", "a": {"b": 1e999}, "c": float("nan")}},
    ],
)
def test_parts_of_another_shape_are_no_reason_to_fail(tmp_path: Path, parts: Any) -> None:
    runs = [write(tmp_path / name, [line(1)], record={"strategy_parts": parts}) for name in "ab"]
    assert "<i>" not in page_of(tmp_path, *runs)


def test_only_options_are_listed() -> None:
    """The fields of `Settings` are options but for a few, and those are what the aggregator has made of them."""
    shown = settings_of(report_of(recorded())).keys()
    assert shown >= options_of_run().keys() | {"prefix"}
    assert Settings.model_fields.keys() - shown == {"sums", "region", "survey", "look", "privacy"}


def test_what_a_region_or_a_survey_was_told_is_listed_under_the_names_of_options(tmp_path: Path) -> None:
    region = recorded()
    region["settings"]["region"] = {"name": "west", "edges": 3}
    shown = listed(Outline(page_of(tmp_path, write(tmp_path / "run", [line(1)], record=region))).text)
    assert (shown["name"], shown["edges"], shown["combine"]) == ("west", "3", "mean: equal false")
    assert "region" not in shown
    survey = {"least": 5, "ranges": {"age": [0, 120]}, "cells": 1, "private": False}
    options = settings_of(report_of({"settings": {"survey": survey}}))
    assert options == {"least": 5, "range": {"age": [0, 120]}, "cells": 1}


def test_options_of_simulate_are_compared() -> None:
    """Runs that differ in their attack or their weights do not have the same settings."""
    fleet = {
        "options": {"device": "cpu"},
        "attack": None,
        "virtual": {"heterogeneity": "phones", "sha256": "ab"},
    }
    attack = {"specification": "alie:edges=2", "summary": "2 of 4 edges attack: alie"}
    runs = [
        report_of({"settings": SETTINGS, **record})
        for record in (
            {"fleet": fleet},
            {"fleet": fleet | {"attack": attack}, "first_weights": {"digest": "f" * 64}},
        )
    ]
    assert settings_that_differ(runs) == [("attack", [None, "alie:edges=2"]), ("init", [None, "f" * 64])]
    assert settings_of(runs[0])["heterogeneity"] == "phones"
    assert setting_text("attack", None) == "–"
