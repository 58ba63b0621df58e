"""``examples/own-task``: a task of at most 60 lines, with a metric of its own, simulated and on separate edges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from fl_aggregator.tools.dashboard.address import WebSocketAddress
from fl_aggregator.tools.dashboard.server import DashboardServer
from fl_shared.system.mosquitto import LOOPBACK
from tests.support import programs
from tests.support.browser import CheckedPage, browser, find_browser, websocket_broker
from tests.support.run_files import Outline, page_of
from tests.support.wait import PATIENCE, wait_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-task"
SITES = ("east", "north", "south")

pytestmark = [pytest.mark.broker, pytest.mark.edge]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    directory = tmp_path_factory.mktemp("own-task")
    command = [sys.executable, str(EXAMPLE / "run.py"), str(directory)]
    return directory, subprocess.run(command, capture_output=True, text=True, timeout=100 * PATIENCE)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """One in which the task's module is found."""
    paths = [str(EXAMPLE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def test_the_task_is_short() -> None:
    assert len((EXAMPLE / "heat_load.py").read_text().splitlines()) <= 60


def check_the_run(directory: Path, printed: str) -> None:
    """Its errors shrink, and are shown in their unit, never as a percentage."""
    lines = programs.history(directory)
    errors = [line["metrics"][name] for line in lines for name in ("before_worst hour", "after_worst hour")]
    assert errors[-1] < 0.5 * errors[0], errors
    assert " kW (holdout)" in printed
    assert "%" not in printed
    text = Outline(page_of(directory, directory / "run")).text
    assert " kW" in text
    assert "%" not in text[text.index("Learning") :]


@pytest.mark.long
def test_it_trains_in_a_simulation(simulated: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    directory, ended = simulated
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (
        "no edge evaluates on the test split: the task has no test split"
        in (directory / "run/fleet.log").read_text()
    )
    assert [line["split"] for line in programs.history(directory)] == ["holdout"] * 6, (
        "from the first version on"
    )
    assert " kW, by edge" in ended.stdout
    check_the_run(directory, ended.stdout + ended.stderr)


@pytest.mark.long
def test_it_trains_on_separate_edges_with_a_file_each(
    simulated: tuple[Path, subprocess.CompletedProcess[str]],
    environment: Mapping[str, str],
    stack: ExitStack,
    tmp_path: Path,
) -> None:
    data, _ = simulated
    (tmp_path / "broker").mkdir()
    broker, port = websocket_broker(tmp_path / "broker")
    stack.callback(broker.stop)
    task = ("--task", "heat_load:HeatLoad")
    aggregator = stack.enter_context(
        programs.aggregator(
            tmp_path, broker.url, *task, "--partition", "own", "--clients", "3", "--rounds", "4"
        )
    )
    edges = [
        stack.enter_context(
            programs.edges(tmp_path / site, broker.url, site, *task, "--data", str(data / "sites" / site),
                           environment=environment)
        )
        for site in SITES
    ]  # fmt: skip
    aggregator.ends_well()
    check_the_run(tmp_path, aggregator.out + aggregator.err)
    assert [line["participants"] for line in programs.history(tmp_path)] == [list(SITES)] * 4
    for site, edge in zip(SITES, edges, strict=True):
        wait_until(partial(said, edge, f"[{site}] version 4: worst hour "), 30, f"{site} evaluates version 4")

    shows = [
        stack.enter_context(
            programs.Program(tmp_path / command[0], "fl-aggregator", *command, "--broker", broker.url)
        )
        for command in (["watch"], ["predict", str(data / "request.json")])
    ]
    for shown in shows:
        shown.ends_well(30)
        assert " kW" in shown.out
        assert "%" not in shown.out

    program = find_browser()
    if program is None:
        pytest.skip("no Chromium here: the page was not looked at")
    address = WebSocketAddress.parse(f"ws://{LOOPBACK}:{port}/mqtt")
    with DashboardServer(address, "fl", (LOOPBACK, 0)) as server, browser(program) as chromium:
        look_at(CheckedPage(chromium), server.url, json.loads((data / "request.json").read_text()))


def said(program: programs.Program, text: str) -> bool:
    return text in program.err


def look_at(page: CheckedPage, url: str, request: object) -> None:
    """The page shows the error in its unit, and asks with a form made from the task's example."""
    page.page.goto(url)
    page.wait_text("#f-primary", " kW")
    page.wait_text("#metric-title", "worst hour (kW)")
    page.wait_text("#edges-grid", " kW")
    page.page.locator("#predict-form textarea").fill(json.dumps(request))
    page.page.locator("#predict-ask").click()
    page.wait_text("#answer-label", " kW")
    assert "%" not in page.text("body")
    assert not page.page.locator("#predict-board").is_visible()
    page.close()
