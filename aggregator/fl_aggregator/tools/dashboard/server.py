"""Serves the dashboard's page, and a ``config.json`` with the broker's address.

No message passes through it.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fl_aggregator.tools.dashboard.address import WebSocketAddress
from fl_shared.data.digits import DIGITS
from fl_shared.errors import UserError
from fl_shared.system.bounded_server import REQUEST_TIMEOUT, BoundedServer

LOG = logging.getLogger(__name__)

STATIC: Final = Path(__file__).parent / "static"
"""The directory of the page's files, which Mosquitto can serve too."""
CONFIG_PATH: Final = "/config.json"
DIGITS_PATH: Final = "/join/digits.csv.gz"
_CONTENT_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".gz": "application/gzip",
    ".md": "text/plain; charset=utf-8",
    ".LICENSE": "text/plain; charset=utf-8",
}
_HEADERS: Final = {
    # Only the page's own scripts, styles and pictures, but connections to any broker that a user enters.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}
_POLL_INTERVAL: Final = 0.1


class DashboardServer:
    """Serves the page at ``url`` while its ``with`` block runs, on a thread of its own.

    ``listen``: host and port, 0 for any free port. ``join``: the page offers visitors to take part with their device,
    and is served with the digits that they train on. Raises `UserError` if it cannot listen there.
    """

    def __init__(
        self, broker: WebSocketAddress, prefix: str, listen: tuple[str, int], *, join: bool = False
    ) -> None:
        config = {"broker": broker.url, "prefix": prefix, "user": broker.user} | (
            {"join": True} if join else {}
        )
        pages = _pages() | {CONFIG_PATH: (_CONTENT_TYPES[".json"], json.dumps(config).encode())}
        if join:
            pages[DIGITS_PATH] = (_CONTENT_TYPES[".gz"], DIGITS.read_bytes())
        host, port = listen
        kind = _IPv6Server if ":" in host else _Server
        try:
            self._server = kind(listen, _handler(pages))
        except (OSError, OverflowError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise UserError(
                f"--listen {_bracketed(host)}:{port}: {reason}; expected an address of this machine and a free port"
            ) from None
        self.url = f"http://{_bracketed(host)}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_INTERVAL,), name="fl-dashboard", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(REQUEST_TIMEOUT)


class _Server(BoundedServer, HTTPServer):
    pass


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


def _pages() -> dict[str, tuple[str, bytes]]:
    """Maps paths to content types and contents.

    With all in memory, no request's path reaches the file system.
    """
    return {
        f"/{file.relative_to(STATIC).as_posix()}": (_CONTENT_TYPES[file.suffix], file.read_bytes())
        for file in STATIC.rglob("*")
        if file.suffix in _CONTENT_TYPES
    }


def _handler(pages: dict[str, tuple[str, bytes]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT
        server_version = "fl-mqtt"
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            page = pages.get("/index.html" if path == "/" else path)
            kind, content = page or ("text/plain; charset=utf-8", b"there is no such page here\n")
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
            LOG.debug("%s: " + format, self.address_string(), *args)

    return Handler


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
