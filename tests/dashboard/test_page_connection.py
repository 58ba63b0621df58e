"""Where the page finds its broker, and what it says where it does not, or is not let in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fl_aggregator.tools.dashboard.address import WebSocketAddress
from fl_aggregator.tools.dashboard.server import DashboardServer
from fl_shared.system.mosquitto import LOOPBACK, Listener
from tests.support.broker import Mosquitto
from tests.support.browser import CheckedPage
from tests.support.ports import free_port
from tests.support.simulated_federation import SimulatedFederation

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.broker
Open = Callable[..., CheckedPage]


def test_a_prefix_where_nothing_is(chromium: Browser, web_broker: tuple[Mosquitto, int]) -> None:
    address = WebSocketAddress.parse(f"ws://{LOOPBACK}:{web_broker[1]}/mqtt")
    with DashboardServer(address, "nobody/here", (LOOPBACK, 0)) as server:
        page = CheckedPage(chromium)
        page.page.clock.install()
        page.page.goto(server.url)
        page.wait_text("#connection-text", "Live")
        page.page.clock.fast_forward(3000)
        page.page.clock.run_for(1100)
        page.wait_text("#banner", "Nothing is published under the prefix nobody/here")
        page.close()


def test_an_account_that_is_refused_is_asked_for(opened: Open, tmp_path: Path) -> None:
    port = free_port()
    listener = Listener(port, LOOPBACK, websockets=True)
    broker = Mosquitto(tmp_path, extra=listener.config_lines(), allow_anonymous=False)
    try:
        with DashboardServer(
            WebSocketAddress.parse(f"ws://{LOOPBACK}:{port}"), "fl", (LOOPBACK, 0)
        ) as server:
            page = opened(server.url)
            page.wait_text("#settings-problem", "check the user and the password")
            page.page.locator("#s-user").fill("me")
            page.page.locator("#s-password").fill("hunter2")
            page.page.locator("#s-broker").fill("http://nowhere")
            page.page.locator("#settings-form .main").click()
            page.wait_text("#settings-problem", "expected ws://host:port/mqtt")
            page.page.locator("#s-broker").fill(f"ws://{LOOPBACK}:{port}/mqtt")
            page.page.locator("#settings-form .main").click()
            page.wait_text("#banner", "refused the account")
            kept = page.page.evaluate(
                "JSON.stringify([{...localStorage}, {...sessionStorage}, location.href, document.cookie])"
            )
            assert "hunter2" not in kept
    finally:
        broker.stop()


@pytest.mark.parametrize(
    "agrees", [pytest.param(True, id="yes", marks=pytest.mark.long), pytest.param(False, id="no")]
)
def test_a_link_to_another_broker_is_asked_about_first(
    opened: Open, web_broker: tuple[Mosquitto, int], federation: SimulatedFederation, agrees: bool
) -> None:
    """``localhost`` is another host than 127.0.0.1, though the same broker listens there."""
    federation.usual()
    port = web_broker[1]
    linked = f"#broker=ws://localhost:{port}/mqtt&prefix={federation.prefix}"
    page = opened(f"http://{LOOPBACK}:{port}/{linked}")
    page.wait_text("#stranger-host", f"localhost:{port}")
    page.page.locator("#stranger").wait_for()
    assert page.hosts == {LOOPBACK}, "nothing is sent to the other host yet"
    assert not page.page.locator("#s-password").is_visible()
    if agrees:
        page.page.get_by_role("button", name=f"Connect to localhost:{port}").click()
    else:
        page.page.keyboard.press("Escape")
    page.wait_text("#overview-title", "Version 3 of 10")
    assert ("localhost" in page.hosts) == agrees
    assert ("localhost" in page.page.url) == agrees


def test_a_link_without_tls_to_a_broker_that_has_it_is_asked_about_first(opened: Open) -> None:
    """Both have their usual ports, so the hosts are the same; the account would be sent in the clear."""
    with DashboardServer(WebSocketAddress.parse(f"wss://{LOOPBACK}/mqtt"), "fl", (LOOPBACK, 0)) as server:
        page = opened(f"{server.url}#broker=ws://{LOOPBACK}/mqtt")
        page.wait_text("#stranger-host", f"ws://{LOOPBACK}/mqtt")
        page.page.locator("#stranger").wait_for()


def test_mosquitto_alone_serves_it(
    opened: Open, web_broker: tuple[Mosquitto, int], federation: SimulatedFederation
) -> None:
    """Without a Content-Type, and without our headers: the page brings its own policy."""
    federation.usual()
    page = opened(f"http://{LOOPBACK}:{web_broker[1]}/#prefix={federation.prefix}")
    page.wait_text("#overview-title", "Version 3 of 10")
    page.wait('document.querySelectorAll("#edges-grid li").length === 3')
    assert page.page.locator("body").evaluate("body => getComputedStyle(body).marginTop") == "0px"
