"""The page beside a real run: real edges that train, one that is killed, a broker and an aggregator that go away."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fl_aggregator.tools.dashboard.address import WebSocketAddress
from fl_aggregator.tools.dashboard.server import DashboardServer
from fl_shared.system.mosquitto import LOOPBACK
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.browser import CheckedPage, websocket_broker

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.long, pytest.mark.timeout(960)]
LONG = 60_000.0
"""Milliseconds for what needs training, on a quiet machine."""
# So many epochs that a round takes seconds: the page learns the edges' states once a second.
SETTINGS = (
    "--task", "digits", "--clients", "4", "--per-round", "4", "--quorum", "4", "--rounds", "400", "--epochs", "80",
    "--deadline", "120", "--wait", "120", "--grace", "0",
)  # fmt: skip


VERSION = (
    'Math.max(0, ...[...document.querySelectorAll("[data-curve=loss] tbody td:nth-child(2)")]'
    ".map(one => Number(one.textContent) || 0))"
)


EVENTS = '[...document.querySelectorAll("#events .what")].map(one => one.textContent)'


@dataclass
class Run:
    directory: Path
    broker: Mosquitto
    aggregator: programs.Program
    url: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Run]:
    """Edge 0 in a process of its own; 1 to 3 are the test's, which may lose them: no round closes without all."""
    directory = tmp_path_factory.mktemp("run")
    (directory / "broker").mkdir()
    broker, port = websocket_broker(directory / "broker")
    address = WebSocketAddress.parse(f"ws://{LOOPBACK}:{port}/mqtt")
    with (
        DashboardServer(address, "fl", (LOOPBACK, 0)) as server,
        programs.aggregator(directory, broker.url, *SETTINGS) as aggregator,
        programs.edges(directory / "edges", broker.url, "0", "--workers", "1"),
    ):
        yield Run(directory, broker, aggregator, server.url)
        print(aggregator.output[-3000:])  # noqa: T201 (shown if a test has failed)
    broker.stop()


def open_page(chromium: Browser, run: Run) -> CheckedPage:
    page = CheckedPage(chromium)
    page.page.goto(run.url)
    return page


def version(page: CheckedPage) -> int:
    """The newest one in the loss curve's table."""
    found: int = page.page.evaluate(f"() => {VERSION}")
    return found


def test_a_run_from_its_start_with_edges_that_are_killed_and_come_back(chromium: Browser, run: Run) -> None:
    page = open_page(chromium, run)
    page.wait_text("#overview-title", "Waiting for edges", LONG)
    with programs.edges(run.directory / "three", run.broker.url, "1-3", "--workers", "1") as three:
        page.page.locator("[data-curve=loss] summary").click()
        rows = 'document.querySelectorAll("[data-curve=loss] tbody tr").length'
        page.wait(f"{rows} >= 2", LONG)
        before = version(page)
        page.wait(f"{rows} >= 4", LONG)
        assert version(page) >= before + 2, "the curve moves"
        assert page.page.locator("[data-curve]:not([hidden]) .u-over").count() == 2
        assert page.page.locator("#edges-grid li").count() == 4

        # In the middle of a round: they train one after the other, and the first of all is done.
        state = "document.querySelector(`#edge-${one}`).dataset.state"
        page.wait(
            f'["0", "1"].some(one => {state} === "in") && {state.replace("${one}", "3")} === "training"', LONG
        )
        programs.kill_all([three.pid, *programs.descendants(three.pid)])
    # An edge is missing only until the next round is about to open, perhaps too briefly to be seen; then it is offline.
    gone = '["missing", "offline"].includes'
    page.wait(f'["1", "2", "3"].every(one => {gone}({state}))', LONG)
    page.page.locator("#edge-3").click()
    page.wait('/offline|its connection is lost/.test(document.querySelector("#edges-detail").textContent)')
    page.wait_text("#events", "missing: ", LONG)
    page.wait(f"{EVENTS}.some(text => /^(Edge|[23] edges).* offline/.test(text))")
    stood = version(page)

    with programs.edges(run.directory / "three", run.broker.url, "1-3", "--workers", "1"):
        page.wait(f"{EVENTS}.some(text => /^(Edge|[23] edges).* online/.test(text))", LONG)
        page.wait(
            f"{VERSION} >= {stood + 2}",
            LONG,
        )
        late_page_and_a_drawing(chromium, run, stood)
        broker_restart(page, run)
        aggregator_killed(chromium, page, run)
    page.close(broken=True)


def late_page_and_a_drawing(chromium: Browser, run: Run, rounds: int) -> None:
    """Who comes now sees all that has been, and may ask."""
    page = open_page(chromium, run)
    page.page.locator("[data-curve=loss] summary").click()
    page.wait(f'document.querySelectorAll("[data-curve=loss] tbody tr").length >= {rounds}')
    page.wait('document.querySelectorAll("#edges-grid li").length === 4')
    page.draw((7, 6), (20, 6), (12, 23))
    page.draw((11, 14), (19, 14))  # as most of the data set's have it
    page.page.wait_for_selector("#answer-label")
    assert page.text("#answer-label") == "7"
    bars = page.page.locator("#answer .bars li")
    assert bars.count() == 10
    chances = [float(text.split()[1]) for text in bars.all_inner_texts()]
    assert sum(chances) == pytest.approx(100, abs=1)
    assert max(chances) == chances[7]
    page.wait_text("#answer", "edge ")
    page.close()


def broker_restart(page: CheckedPage, run: Run) -> None:
    """It forgets everything; the page does not, and finds back by itself."""
    stood = version(page)
    run.broker.stop()
    page.wait_text("#banner", "No connection to the broker")
    assert page.text("#connection-text") == "Reconnecting"
    assert version(page) == stood
    run.broker.start()
    page.wait_text("#connection-text", "Live", LONG)
    page.wait_text("#events", "Connected to the broker again")
    page.wait(f"{VERSION} > {stood + 1}", LONG)


def aggregator_killed(chromium: Browser, page: CheckedPage, run: Run) -> None:
    run.aggregator.send(signal.SIGKILL)
    page.wait_text("#banner", "The aggregator is offline", LONG)
    late = open_page(chromium, run)
    late.wait_text("#banner", "The aggregator is offline. The data below is from")
    late.wait('document.querySelectorAll("#edges-grid li").length === 4')
    late.wait_text("[data-curve=loss] .readout", "loss 0.")
    assert late.text("#f-primary").endswith(" %")
    late.close()
