"""One browser for all tests of a process; one broker with WebSockets, each test under a prefix of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from fl_aggregator.tools.dashboard.address import WebSocketAddress
from fl_aggregator.tools.dashboard.server import DashboardServer
from fl_shared.system.mosquitto import LOOPBACK
from tests.support.broker import Mosquitto
from tests.support.browser import CheckedPage, browser, find_browser, new_page, websocket_broker
from tests.support.simulated_federation import SimulatedFederation

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

REQUIRED = "FL_TEST_BROWSER_REQUIRED"
"""Set where a skipped test would go unseen, as in continuous integration."""


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        why = "no Chromium here: install it (Debian: apt install chromium) or name it in FL_CHROMIUM"
        if os.environ.get(REQUIRED):
            pytest.fail(why)
        pytest.skip(f"THE DASHBOARD IS NOT TESTED: {why}")
    with browser(program) as started:
        yield started


@pytest.fixture(scope="package")
def usual_page(chromium: Browser) -> Page:
    """That of all tests that need no other one. A new one costs as much CPU time as what it shows."""
    return new_page(chromium)


@pytest.fixture(scope="package")
def web_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mosquitto, int]]:
    started, port = websocket_broker(tmp_path_factory.mktemp("broker"))
    yield started, port
    started.stop()


@pytest.fixture
def federation(web_broker: tuple[Mosquitto, int]) -> Iterator[SimulatedFederation]:
    """An aggregator and edges played by hand."""
    with SimulatedFederation(web_broker[0], f"t{secrets.token_hex(4)}") as played:
        yield played


@pytest.fixture
def served(web_broker: tuple[Mosquitto, int], federation: SimulatedFederation) -> Iterator[str]:
    """The address of the page that shows it."""
    address = WebSocketAddress.parse(f"ws://{LOOPBACK}:{web_broker[1]}/mqtt")
    with DashboardServer(address, federation.prefix, (LOOPBACK, 0)) as server:
        yield server.url


@pytest.fixture
def opened(chromium: Browser, usual_page: Page, served: str) -> Iterator[Callable[..., CheckedPage]]:
    """Opens the page; at the end nothing may have gone wrong in it.

    Its date stands still, since on a slow machine what it shows would grow stale before it is looked at. Timers run.
    With ``clock``, a clock is installed instead, which a test moves.
    """
    pages: list[CheckedPage] = []

    def open_page(url: str = served, *, clock: bool = False, **context: Any) -> CheckedPage:
        usual = not (clock or context or pages)
        watched = CheckedPage(chromium, usual_page if usual else None, **context)
        pages.append(watched)
        if clock:
            watched.page.clock.install()
        else:
            watched.page.clock.set_fixed_time(datetime.now(tz=UTC))
        watched.page.goto(url)
        return watched

    yield open_page
    for one in pages:
        one.close()
