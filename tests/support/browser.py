"""A headless browser, and the checks of every page: no error, and no request to another machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fl_aggregator.tools.dashboard.server import STATIC
from fl_shared.system.mosquitto import LOOPBACK, Listener
from tests.support.broker import Mosquitto
from tests.support.ports import free_port
from tests.support.wait import PATIENCE, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
POLLING = 50.0
"""Milliseconds between two looks of a wait; without it the page would be drawn for each."""
TIMEOUT = 30_000.0
"""Milliseconds that a page may take for anything on a quiet machine (see `PATIENCE`)."""
OURS = ("127.0.0.1", "localhost")


def find_browser() -> str | None:
    """The path of a Chromium: FL_CHROMIUM, or what this system has."""
    named = os.environ.get("FL_CHROMIUM")
    found = (
        [named] if named else [shutil.which(name) for name in PROGRAMS] + [str(MAC) if MAC.exists() else None]
    )
    return next((path for path in found if path), None)


@contextmanager
def browser(program: str) -> Iterator[Browser]:
    # Only one of the processes that collect this file opens a browser.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container has no user namespace for the browser's sandbox, and a small /dev/shm. All pages share a process:
        # one for each test costs as much CPU time as the test.
        container = ("--no-sandbox", "--disable-dev-shm-usage")
        one_process = ("--process-per-site", "--disable-site-isolation-trials")
        started = playwright.chromium.launch(executable_path=program, args=[*container, *one_process])
        yield started
        started.close()


def new_page(browser: Browser, **options: Any) -> Page:
    """A page in a context of its own, with these options."""
    # Frames cost CPU time.
    usual = {"viewport": {"width": 1440, "height": 1000}, "reduced_motion": "reduce"}
    page = browser.new_context(**(usual | options)).new_page()
    page.set_default_timeout(TIMEOUT * PATIENCE)
    return page


class CheckedPage:
    """A page of `new_page`, and what went wrong in it.

    ``again``: a page that has been used before, and will be used again.
    """

    def __init__(self, browser: Browser, again: Page | None = None, **options: Any) -> None:
        self.page: Page = again or new_page(browser, **options)
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self._heard: dict[Any, Callable[[Any], None]] = {
            "console": lambda message: self._said(message.type, message.text),
            "pageerror": lambda error: self.errors.append(f"uncaught: {error}"),
            "request": lambda request: self._asked(request.url),
            "websocket": lambda socket: self._asked(socket.url),
        }
        for event, hear in self._heard.items():
            self.page.on(event, hear)
        self._again = again is not None

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.errors.append(f"console {kind}: {text}")

    def _asked(self, url: str) -> None:
        if not url.startswith(("data:", "blob:")):
            self.hosts.add(urlsplit(url).hostname or "")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def pause_clock(self) -> None:
        """Stops the page's clock, which is installed: it would go on by itself while a slow machine works."""
        self.page.clock.pause_at(self.page.evaluate("Date.now()") / 1000 + 1)

    def go_on_until_text(self, selector: str, part: str, *, step: int) -> None:
        """Lets the page's clock, which is paused, go on by ``step`` milliseconds until the text is there."""

        def there() -> bool:
            self.page.clock.run_for(step)
            return part in self.text(selector)

        wait_until(there, TIMEOUT / 1000, f"{part!r} in {selector}")

    def wait(self, expression: str, timeout: float = TIMEOUT) -> None:
        """Waits until a JavaScript expression is true in the page. ``timeout``: as `TIMEOUT`."""
        self.page.wait_for_function(f"() => {expression}", timeout=timeout * PATIENCE, polling=POLLING)

    def wait_text(self, selector: str, part: str, timeout: float = TIMEOUT) -> None:
        self.page.wait_for_function(
            "([selector, part]) => document.querySelector(selector)?.textContent.includes(part)",
            arg=[selector, part],
            timeout=timeout * PATIENCE,
            polling=POLLING,
        )

    def wait_connected(self) -> None:
        """Waits for the connection to the broker, even if the status has grown stale before the page has shown it."""
        self.wait('["connected", "stale"].includes(document.querySelector("#connection").dataset.state)')

    def draw(self, *points: tuple[float, float]) -> None:
        """Draws one stroke on the board, whose coordinates are its own 28 × 28 pixels."""
        board = self.page.locator("#sketch")
        board.scroll_into_view_if_needed()
        box = board.bounding_box()
        assert box is not None
        places = [(box["x"] + x / 28 * box["width"], box["y"] + y / 28 * box["height"]) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=8)
        self.page.mouse.up()

    def close(self, *, broken: bool = False) -> None:
        """Closes the page and checks it. ``broken``: the browser may report that the broker is gone."""
        if self._again:
            for event, hear in self._heard.items():
                self.page.remove_listener(event, hear)
            self.page.mouse.move(0, 0)
            self.page.goto("about:blank")
        else:
            self.page.context.close()
        errors = [text for text in self.errors if not (broken and "WebSocket" in text)]
        assert errors == []
        assert self.hosts <= set(OURS), "a request has left this machine"


def websocket_broker(directory: Path) -> tuple[Mosquitto, int]:
    """A broker that also listens for WebSockets, and serves the page itself, at the port given."""
    port = free_port()
    listener = Listener(port, LOOPBACK, websockets=True, http_dir=STATIC)
    return Mosquitto(directory, extra=listener.config_lines()), port
