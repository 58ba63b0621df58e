"""Sites that each have a table of their own train one model: a process for each, without torch, on a real Mosquitto."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.tables import HOUSES, houses, write_csv
from tests.support.wait import wait_until
from tests.support.without_packages import NOT_IN_LITE, without_packages

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

RUN = (
    "--task", "tabular", "--task-option", "target=price", "--task-option", "unit=k€", "--partition", "own",
    "--clients", "3", "--epochs", "4", "--lr", "0.02", "--batch-size", "16", "--holdout", "0.2",
)  # fmt: skip


def site(
    stack: ExitStack, directory: Path, url: str, name: str, *arguments: str, lite: bool = False
) -> programs.Program:
    """The edge of a site. ``lite``: where torch is not even installed."""
    data = ("--light", "--data", str(directory / name / "data"))
    environment = without_packages(directory / name / "site", *NOT_IN_LITE) if lite else None
    return stack.enter_context(
        programs.edges(
            directory / name, url, name, "--keepalive", "2", *data, *arguments, environment=environment
        )
    )


def test_three_sites_learn_prices_and_tell_them_in_their_unit(
    shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path
) -> None:
    url, prefix = shared_mosquitto.url, ("--prefix", "tables/good")
    for number, name in enumerate("abc"):
        houses(tmp_path / name / "data" / "houses.csv", number)
        site(stack, tmp_path, url, name, *prefix, lite=name == "a")
    run = stack.enter_context(programs.aggregator(tmp_path, url, *prefix, *RUN, "--rounds", "15"))
    run.ends_well()
    last = programs.history(tmp_path)[-1]
    assert last["participants"] == ["a", "b", "c"]
    assert last["split"] == "holdout"
    assert last["metrics"]["mae"] < 30, "prices deviate by 120"
    assert f"mae {last['metrics']['mae']:.2f} k€" in run.err
    request = tmp_path / "house.json"
    request.write_text(json.dumps({"area": 120, "rooms": 4, "kind": "house"}))
    asked = ("fl-aggregator", "predict", str(request), "--broker", url, *prefix)
    with programs.Program(tmp_path / "ask", *asked, "--json") as predict:
        predict.ends_well()
        output = predict.result["output"]
        assert output["unit"] == "k€"
        assert output["value"] == pytest.approx(500, abs=60)
    request.write_text('{"aera": 120}')
    with programs.Program(tmp_path / "ask-wrongly", *asked) as predict:
        assert predict.wait() != 0
        assert "'aera' is unknown, expected any of: area, rooms, kind" in predict.out + predict.err, (
            predict.output
        )


BAD_TABLES = {
    "empty": ("", ": is empty, expected a row of column names"),
    "header": ("age,state\n", ": has column names, but no example below them"),
    "target": ("age,stat\n1,ill\n", ": row 1: column 'state' (target) is missing; the file has: age, stat"),
    "class": (
        "age,state\n1,ill\n2,dead\n",
        ": row 3, column 'state': 'dead' is an unknown class, expected one of: ill",
    ),
    "number": (
        "age,state\n1,ill\n2,well\nold,ill\n",
        ": row 4, column 'age': 'old' is no number, expected one",
    ),
    "gaps": (
        "age,state\n,ill\n,well\n",
        ": no example is left without the 2 that have gaps: column 'age' has 2",
    ),
    "twice": ("age,age,state\n1,2,ill\n", ": row 1: two columns are named 'age'"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_an_edge_whose_table_is_wrong_ends_with_2_before_it_connects(tmp_path: Path, name: str) -> None:
    content, message = BAD_TABLES[name]
    table = tmp_path / "bad" / "data" / "site.csv"
    table.parent.mkdir(parents=True)
    table.write_text(content)
    task = "tabular?target=state&classes=ill%2Cwell&missing=drop"
    nowhere = "mqtt://127.0.0.1:1"
    with ExitStack() as stack:
        edge = site(stack, tmp_path, nowhere, "bad", "--task", task)
        assert edge.wait() == 2
        assert f"{table}{message}" in edge.err, edge.output
        assert "Traceback" not in edge.err


def test_a_site_with_a_wrong_cell_does_not_take_part_and_the_others_train(
    shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path
) -> None:
    """Its user has not named the task, so its table is read once the run is known."""
    url, prefix = shared_mosquitto.url, ("--prefix", "tables/bad")
    for number, name in enumerate("ab"):
        houses(tmp_path / name / "data" / "houses.csv", number)
        site(stack, tmp_path, url, name, *prefix)
    bad = tmp_path / "bad" / "data" / "houses.csv"
    write_csv(bad, HOUSES, [(100, 4, "flat", 400.5), (100, 4, "flat", 380.5), ("large", 5, "flat", 420.5)])
    wrong = site(stack, tmp_path, url, "bad", *prefix)
    run = stack.enter_context(programs.aggregator(tmp_path, url, *prefix, *RUN, "--rounds", "2"))
    problem = f"{bad}: row 4, column 'area': 'large' is no number, expected one as in most rows"
    wait_until(lambda: f"edge bad does not take part: {problem}" in run.err, 60, "the edge declines")
    houses(tmp_path / "c" / "data" / "houses.csv", 2)
    site(stack, tmp_path, url, "c", *prefix)
    run.ends_well()
    assert problem in wrong.err, wrong.output
    assert "Traceback" not in wrong.err, wrong.output
    assert programs.history(tmp_path)[-1]["participants"] == ["a", "b", "c"]
