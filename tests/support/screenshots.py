"""The pictures of the README and docs/dashboard.md, from a real run.

``python -m tests.support.screenshots`` makes them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page

from fl_aggregator.tools.dashboard.address import WebSocketAddress
from fl_aggregator.tools.dashboard.server import DashboardServer
from fl_shared.system.mosquitto import LOOPBACK
from tests.support import programs
from tests.support.browser import CheckedPage, browser, find_browser, websocket_broker

IMAGES = Path(__file__).parents[2] / "docs" / "images"
LONG = 180_000.0
SETTINGS = (
    "--task", "digits", "--clients", "24", "--per-round", "14", "--rounds", "16", "--epochs", "30", "--partition",
    "dirichlet:0.7", "--grace", "2", "--deadline", "120",
)  # fmt: skip
MANY = (
    "--task", "digits", "--clients", "400", "--per-round", "300", "--rounds", "12", "--epochs", "3",
    "--deadline", "300", "--partition", "iid", "--holdout", "0",
)  # fmt: skip


THREE = (
    (9, 7), (12, 5), (16, 5), (18, 8), (17, 11), (13, 13), (17, 15), (19, 18), (17, 22), (12, 23), (8, 21),
)  # fmt: skip


def shot(page: Page, name: str, *, whole: bool = True) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(700)  # until bars and banners stop moving
    page.screenshot(path=IMAGES / f"{name}.png", full_page=whole)


def reached(page: CheckedPage, number: int) -> None:
    """Waits until the curve shows ``number`` rounds."""
    readout = 'document.querySelector("[data-curve=metric] .readout").textContent'
    page.wait(f"Number({readout}.match(/round ([0-9]+)/)?.[1]) >= {number}", LONG)


def a_run_with_a_loss(chromium: Browser, directory: Path) -> None:
    """Takes pictures of a run that loses an edge: light, then dark with a drawing, and on a telephone."""
    (directory / "broker").mkdir(parents=True)
    broker, port = websocket_broker(directory / "broker")
    address = WebSocketAddress.parse(f"ws://{LOOPBACK}:{port}/mqtt")
    with (
        DashboardServer(address, "fl", (LOOPBACK, 0)) as server,
        programs.aggregator(directory, broker.url, *SETTINGS) as run,
        programs.edges(directory / "edges", broker.url, "0-22"),
        programs.edges(directory / "lost", broker.url, "23", "--workers", "1") as lost,
    ):
        page = CheckedPage(chromium, viewport={"width": 1440, "height": 900})
        page.page.goto(server.url)
        reached(page, 6)
        page.page.locator("#edge-23").click()
        page.wait('["selected", "training"].includes(document.querySelector("#edge-23").dataset.state)', LONG)
        programs.kill_all([lost.pid, *programs.descendants(lost.pid)])
        page.wait('document.querySelector("#edge-23").dataset.state === "missing"', LONG)
        # This lasts only until the next round opens.
        page.page.screenshot(path=IMAGES / "dashboard-light.png", full_page=True)
        page.wait_text("#overview-title", "Finished", LONG)
        run.ends_well()
        page.draw(*THREE)
        page.page.wait_for_selector("#answer-label", timeout=LONG)
        page.page.locator("#edge-7").click()
        page.page.emulate_media(color_scheme="dark")
        shot(page.page, "dashboard-dark")
        page.page.set_viewport_size({"width": 390, "height": 844})
        page.page.evaluate("() => scrollTo(0, 0)")
        shot(page.page, "dashboard-phone", whole=False)
        page.close()
    broker.stop()


def many_edges(chromium: Browser, directory: Path) -> None:
    (directory / "broker").mkdir(parents=True)
    broker, port = websocket_broker(directory / "broker")
    address = WebSocketAddress.parse(f"ws://{LOOPBACK}:{port}/mqtt")
    with (
        DashboardServer(address, "fl", (LOOPBACK, 0)) as server,
        programs.aggregator(directory, broker.url, *MANY),
        programs.edges(directory / "edges", broker.url, "0-399", "--evaluator", "evaluator"),
    ):
        page = CheckedPage(chromium, viewport={"width": 1440, "height": 900})
        page.page.goto(server.url)
        reached(page, 7)
        page.wait('document.querySelectorAll("[data-state=in][role=option]").length > 100', LONG)
        page.page.locator("[data-state=training][role=option]").first.click()
        shot(page.page, "dashboard-many")
        page.close()
    broker.stop()


def main() -> None:
    """Makes the pictures; with ``one`` or ``many`` as an argument, only those of that run."""
    program = find_browser()
    assert program is not None, "needs a Chromium"
    with tempfile.TemporaryDirectory() as directory, browser(program) as chromium:
        if "many" not in sys.argv[1:]:
            a_run_with_a_loss(chromium, Path(directory) / "one")
        if "one" not in sys.argv[1:]:
            many_edges(chromium, Path(directory) / "many")


if __name__ == "__main__":
    main()
