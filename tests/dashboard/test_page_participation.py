"""A visitor's device takes part in a run, in a real browser and with a real aggregator, if the visitor asks for it."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fl_aggregator.tools.dashboard.address import WebSocketAddress
from fl_aggregator.tools.dashboard.server import STATIC, DashboardServer
from fl_shared.data.digits import DIGITS
from fl_shared.protocol import messages as m
from fl_shared.system.mosquitto import LOOPBACK
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.browser import CheckedPage
from tests.support.client import Client
from tests.support.node_edge import node_edge, with_packages
from tests.support.observed_fold import ObservedUpdates

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.broker, pytest.mark.timeout(480)]
PREFIX = "browser/joins"
CONNECTED = "document.querySelector('#connection').dataset.state !== 'connecting'"
RUN = (
    *("--task", "digits-mlp", "--clients", "3", "--per-round", "3", "--quorum", "3", "--rounds", "2"),
    *("--epochs", "1", "--deadline", "240", "--wait", "240"),
)


def test_the_worker_is_made_of_the_example(tmp_path: Path) -> None:
    copy = with_packages(tmp_path)
    subprocess.run(["node", "bundle.js", "made"], cwd=copy, check=True, timeout=120)
    for name in ("worker.js", "worker.LICENSE"):
        made, served = (copy / "made" / name).read_text(), (STATIC / "join" / name).read_text()
        assert made == served, f"{name}: run `npm run bundle` in examples/node-edge"


@pytest.fixture
def joined(web_broker: tuple[Mosquitto, int]) -> Iterator[str]:
    address = WebSocketAddress.parse(f"ws://{LOOPBACK}:{web_broker[1]}/mqtt")
    with DashboardServer(address, PREFIX, (LOOPBACK, 0), join=True) as server:
        yield server.url


def test_a_browser_takes_part_beside_other_edges(
    chromium: Browser, web_broker: tuple[Mosquitto, int], joined: str, stack: ExitStack, tmp_path: Path
) -> None:
    """With its part of the digits, and not before it is asked for."""
    broker = web_broker[0]
    prefix = ("--prefix", PREFIX)
    observer = stack.enter_context(Client(broker.endpoint, f"{PREFIX}/#", prefix=PREFIX))
    stack.enter_context(programs.edges(tmp_path / "light", broker.url, "0", "--light", *prefix))
    stack.enter_context(node_edge(with_packages(tmp_path), "1", "--id", "1", "--broker", broker.url, *prefix))
    run = stack.enter_context(programs.aggregator(tmp_path, broker.url, *prefix, *RUN))
    page = CheckedPage(chromium)
    stack.callback(page.close)
    page.page.goto(joined)
    page.page.wait_for_selector("#join:not([hidden])")
    assert page.page.locator("#join-running").is_hidden()
    assert "digits.csv.gz" not in page.page.evaluate(
        "performance.getEntriesByType('resource').map((one) => one.name).join()"
    )
    page.page.click("#join-start")
    name = page.text("#join-name")
    assert name.startswith("browser-")
    run.ends_well(240)
    page.wait_text("#join-state", "2 updates from this device have been accepted")
    assert [line["participants"] for line in programs.history(tmp_path)] == [["0", "1", name]] * 2
    observer.catch_up()
    versions = ObservedUpdates(observer.received).versions(observer.received)
    assert len(versions) == 2
    page.page.click("#join-stop")
    page.page.wait_for_selector("#join-running", state="hidden")
    gone = observer.wait_for_message(m.ClientPresence, client=name, state="offline")
    assert gone.reason == "its user has stopped it"


OFFERED = """(status) => {
  const fitting = { run: "r", task: "digits", masked: null, privacy: null };
  Participation.offer({ status: { ...fitting, ...status }, run: "r", over: status.over });
  return !document.querySelector("#join").hidden;
}"""


def test_what_a_browser_cannot_take_part_in_is_not_offered_and_a_file_that_does_not_fit_is_told(
    opened: Callable[..., CheckedPage], joined: str, tmp_path: Path
) -> None:
    page = opened(joined)
    page.wait(CONNECTED)
    fitting: list[dict[str, object]] = [{}, {"task": "digits-mlp?hidden=3"}]
    assert [page.page.evaluate(OFFERED, status) for status in fitting] == [True, True]
    others: list[dict[str, object]] = [
        {"task": "tabular?target=x"},
        {"masked": {"least": 3, "certified": True}},
        {"privacy": {"epsilon": 1}},
        {"over": True},
        {"run": "another"},
    ]
    assert [page.page.evaluate(OFFERED, status) for status in others] == [False] * 5

    page.page.evaluate("document.querySelector('#join-own').click()")  # hidden, since there is no run
    page.page.evaluate("document.querySelector('#join-start').click()")
    page.wait_text("#join-problem", "Choose a file first")
    (tmp_path / "own.csv").write_text("a,b,c\n1,2,x\n")
    page.page.set_input_files("#join-file", tmp_path / "own.csv")
    page.page.evaluate("document.querySelector('#join-start').click()")
    page.wait_text("#join-problem", "row 1 of the data has a cell that is no number")


def test_nothing_is_offered_without_the_option(opened: Callable[..., CheckedPage]) -> None:
    page = opened()
    page.wait(CONNECTED)
    assert not page.page.evaluate(OFFERED, {})


def test_the_digits_are_served_with_the_offer_only(joined: str) -> None:
    with urllib.request.urlopen(f"{joined}join/digits.csv.gz") as answer:
        assert answer.read() == DIGITS.read_bytes()
    with (
        DashboardServer(WebSocketAddress.parse("ws://localhost"), "fl", (LOOPBACK, 0)) as server,
        pytest.raises(urllib.error.HTTPError, match="404"),
    ):
        urllib.request.urlopen(f"{server.url}join/digits.csv.gz")
