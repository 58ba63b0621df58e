"""``fl-aggregator dashboard``: what is served, with which headers, and what a user may get wrong. No browser needed."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fl_aggregator.tools.dashboard.address import WebSocketAddress
from fl_aggregator.tools.dashboard.server import STATIC, DashboardServer
from fl_shared.errors import UserError
from fl_shared.system.mosquitto import LOOPBACK, Listener, MosquittoChild
from tests.support import programs
from tests.support.browser import websocket_broker
from tests.support.wait import wait_until

BROKER = WebSocketAddress.parse("ws://broker.example:9001/mqtt")


def get(url: str, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """The path exactly as it is given here."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_every_file_that_the_page_names_is_served_with_its_type() -> None:
    with DashboardServer(BROKER, "fl", (LOOPBACK, 0)) as server:
        status, headers, page = get(server.url, "/")
        assert status == 200
        named = [
            part.split(b'"')[0].decode() for part in page.replace(b"src=", b"href=").split(b'href="')[1:]
        ]
        files = [name for name in named if not name.startswith("#")]
        assert len(files) > 20
        for name in files:
            status, headers, body = get(server.url, f"/{name}")
            assert (status, body) == (200, (STATIC / name).read_bytes())
            kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
            assert headers["Content-Type"].startswith(kinds[Path(name).suffix])
        assert get(server.url, "/", "HEAD")[2] == b""


def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    with DashboardServer(BROKER, "fl", (LOOPBACK, 0)) as server:
        for path in ("/", "/js/main.js", "/config.json", "/nothing"):
            _, headers, _ = get(server.url, path)
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self';" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"


def test_the_page_itself_names_no_other_host_and_has_no_markup_from_strings() -> None:
    """Works offline; and what strangers publish has no way into the markup."""
    for file in STATIC.rglob("*"):
        if file.suffix in (".js", ".css", ".html") and "vendor" not in file.parts:
            text = file.read_text()
            assert "https://" not in text, file
            assert "//cdn" not in text, file
            for way in (
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
            ):
                assert way not in text, f"{file}: {way}"


def test_the_libraries_are_those_that_were_published() -> None:
    vendor = STATIC / "vendor"
    listed = re.findall(
        r"^\| `(\S+)` .* `([0-9a-f]{64})` \|$", (vendor / "README.md").read_text(), re.MULTILINE
    )
    assert {name: hashlib.sha256((vendor / name).read_bytes()).hexdigest() for name, _ in listed} == dict(
        listed
    )
    assert {file.name for file in vendor.iterdir()} == {
        *(name for name, _ in listed), "README.md", "mqtt.LICENSE.md", "mqtt.bundled.LICENSE", "uPlot.LICENSE",
    }  # fmt: skip


def test_the_configuration_says_where_the_broker_is_and_nothing_secret() -> None:
    address = WebSocketAddress.parse("wss://ward-3@broker.example/mqtt")
    with DashboardServer(address, "plant7/fl", (LOOPBACK, 0)) as server:
        found = json.loads(get(server.url, "/config.json?x")[2])
    assert found == {"broker": "wss://broker.example/mqtt", "prefix": "plant7/fl", "user": "ward-3"}


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py",
        "/%2e%2e/server.py",
        "//etc/passwd",
        "/js",
        "/js/",
        "/vendor/../../cli.py",
        "/" + "a" * 9000,
    ],
)
def test_nothing_else_is_served(path: str) -> None:
    with DashboardServer(BROKER, "fl", (LOOPBACK, 0)) as server:
        status, _, body = get(server.url, path)
        assert status == 404
        assert body == b"there is no such page here\n"


def test_a_visitor_that_says_nothing_holds_up_nobody() -> None:
    with DashboardServer(BROKER, "fl", (LOOPBACK, 0)) as server:
        place = urlsplit(server.url)
        with socket.create_connection((place.hostname, place.port)) as silent:
            silent.sendall(b"GET / HT")
            assert get(server.url, "/")[0] == 200


@pytest.mark.parametrize(
    ("text", "url", "user"),
    [
        ("ws://h:9001", "ws://h:9001/mqtt", None),
        ("WSS://h/path", "wss://h/path", None),
        ("ws://a%20b@[::1]:9001/mqtt", "ws://[::1]:9001/mqtt", "a b"),
    ],
)
def test_an_address(text: str, url: str, user: str | None) -> None:
    assert WebSocketAddress.parse(text) == WebSocketAddress(url, user)


@pytest.mark.parametrize(
    "text",
    [
        "h:9001",
        "http://h",
        "ws://",
        "ws://h:0",
        "ws://h:99999",
        "ws://h/mqtt?x=1",
        "ws://[::1",
        "ws://a b/",
        "",
    ],
)
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="expected ws://"):
        WebSocketAddress.parse(text)


def test_an_address_for_other_programs_is_explained_and_a_password_is_not_repeated() -> None:
    with pytest.raises(UserError, match="browsers can only use WebSockets"):
        WebSocketAddress.parse("mqtt://broker:1883")
    with pytest.raises(UserError) as caught:
        WebSocketAddress.parse("ws://me:hunter2@broker")
    assert "hunter2" not in str(caught.value)


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    with programs.Program(tmp_path, "fl-aggregator", "dashboard", "--listen", f"{LOOPBACK}:0") as program:
        wait_until(lambda: "dashboard: http://" in program.out, 20, "its address")
        url = program.out.split()[1]
        assert json.loads(get(url, "/config.json")[2])["broker"] == "ws://localhost:9001/mqtt"
        program.send(signal.SIGINT)
        assert program.wait(10) == 0, program.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--listen", "8080"), "expected host:port"),
        (("--listen", "127.0.0.1:x"), "expected host:port"),
        (("--listen", "192.0.2.1:0"), "expected an address of this machine and a free port"),
        (("--broker", "mqtt://localhost"), "browsers can only use WebSockets"),
        (("--prefix", "a/#"), "--prefix"),
    ],
)
def test_mistakes_end_it_at_once(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    with programs.Program(tmp_path, "fl-aggregator", "dashboard", *arguments) as program:
        assert program.wait(20) == 2, program.output
    assert said in program.err
    assert "Traceback" not in program.err


def test_a_port_in_use_is_a_users_mistake() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken, pytest.raises(UserError, match="in use"):
        DashboardServer(BROKER, "fl", taken.getsockname()[:2])


def test_the_lines_for_mosquitto() -> None:
    assert Listener(9001, LOOPBACK, websockets=True, http_dir=Path("/www")).config_lines() == [
        "listener 9001 127.0.0.1", "protocol websockets", "socket_domain ipv4", "http_dir /www",
    ]  # fmt: skip


@pytest.mark.broker
def test_mosquitto_serves_the_same_files_and_none_besides(tmp_path: Path) -> None:
    broker, port = websocket_broker(tmp_path)
    url = f"http://{LOOPBACK}:{port}/"
    try:
        for name in ("", "js/main.js", "css/page.css", "vendor/mqtt.min.js", "config.json"):
            status, _, body = get(url, f"/{name}")
            assert (status, body) == (200, (STATIC / (name or "index.html")).read_bytes())
        assert get(url, "/../server.py")[0] == 404
    finally:
        broker.stop()


@pytest.mark.broker
def test_the_broker_of_a_simulation_is_reached_from_this_machine_only(tmp_path: Path) -> None:
    """Mosquitto 2.0.11 listens for WebSockets on every interface unless it is told its domain."""
    with MosquittoChild(tmp_path, websockets=True) as child:
        assert child.websocket_url is not None
        port = urlsplit(child.websocket_url).port
        assert port is not None
        with socket.create_connection((LOOPBACK, port), 2):
            pass
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
        places = [
            fields[1] for fields in listening if fields[3] == "0A" and fields[1].endswith(f":{port:04X}")
        ]
        assert places == [f"0100007F:{port:04X}"]
