"""Our programs and a real Mosquitto that speaks TLS: whom they trust, what they show, what they say when it fails."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fl_shared.errors import BrokerRefused
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import Connected, ConnectionSettings, ConnectRefused, Lost
from fl_shared.mqtt.network import Network
from fl_shared.security.tls import Tls
from fl_shared.system.mosquitto import LOOPBACK
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.certificates import Authority, Pair, self_signed
from tests.support.command_line import run_here
from tests.support.connection_harness import ConnectionHarness
from tests.support.ports import free_port
from tests.support.programs import Program
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker

SIZES = (0, 1, 1000, 16_384, 16_385, 100_000, 1_048_576, 5_000_000)


@dataclass
class Site:
    """A broker with many doors, each a TLS listener, and the certificates for them."""

    broker: Mosquitto
    authority: Authority
    doors: dict[str, int]
    revoked: Pair

    def url(self, door: str, host: str = LOOPBACK) -> str:
        return f"mqtts://{host}:{self.doors[door]}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    ours, other = Authority(directory / "ours"), Authority(directory / "other", "another authority")
    revoked = ours.client("revoked")
    wants_certificate = ["require_certificate true", f"crlfile {ours.revoking(revoked)}"]
    doors = {
        "server": (ours.broker(), []),
        "mutual": (ours.broker(), wants_certificate),
        "expired": (ours.broker("expired", begins=-30, ends=-1), []),
        "future": (ours.broker("future", begins=2, ends=30), []),
        "self-signed": (self_signed(directory), []),
        "foreign": (other.broker(), []),
        "elsewhere": (ours.broker("elsewhere", hosts=("broker.example",)), []),
    }
    ports = {name: free_port() for name in doors}
    extra = []
    for name, (pair, more) in doors.items():
        extra += [f"listener {ports[name]} {LOOPBACK}", f"cafile {ours.ca}"]
        extra += [f"certfile {pair.cert}", f"keyfile {pair.key}", *more]
    broker = Mosquitto(directory, extra=extra)
    try:
        yield Site(broker, ours, ports, revoked)
    finally:
        broker.stop()


# --- at the start: one line, at once ----------------------------------------------------------------------------

SERVERS = [
    (
        "expired",
        LOOPBACK,
        r"the broker's certificate has expired \(this machine's time is 20.*provision rotate --broker",
    ),
    ("future", LOOPBACK, r"the broker's certificate is not valid yet .*clock right\?"),
    ("self-signed", LOOPBACK, "the broker's certificate is self-signed.*--ca"),
    ("foreign", LOOPBACK, "the broker's certificate is from an authority that is not trusted.*--ca"),
    ("elsewhere", LOOPBACK, "the broker's certificate is not for '127.0.0.1'.*--broker-host"),
    ("elsewhere", "localhost", "the broker's certificate is not for 'localhost'"),
]
CLIENTS = [
    ("none", "it requires a client certificate: give --kit, or --cert and --key"),
    ("foreign", "our certificate is from an authority that it does not trust"),
    ("expired", "our certificate has expired or is not valid yet: get a new one"),
    ("revoked", "our certificate has been revoked: get a new kit"),
]


@pytest.mark.parametrize("program", ["fl-aggregator", "fl-edge"])
@pytest.mark.parametrize(("door", "host", "says"), SERVERS, ids=[f"{row[0]}-{row[1]}" for row in SERVERS])
def test_a_broker_with_a_wrong_certificate_ends_a_start(
    site: Site, tmp_path: Path, program: str, door: str, host: str, says: str
) -> None:
    ends_at_once(tmp_path, program, site.url(door, host), ["--ca", str(site.authority.ca)], says)


@pytest.mark.parametrize("program", ["fl-aggregator", "fl-edge"])
@pytest.mark.parametrize(("which", "says"), CLIENTS, ids=[row[0] for row in CLIENTS])
def test_our_wrong_certificate_ends_a_start(
    site: Site, tmp_path: Path, program: str, which: str, says: str
) -> None:
    pair = wrong_pair(site, tmp_path, which)
    options = ["--ca", str(site.authority.ca), *(pair.options if pair else [])]
    ends_at_once(tmp_path, program, site.url("mutual"), options, says)


@pytest.mark.parametrize(("which", "says"), CLIENTS, ids=[row[0] for row in CLIENTS])
def test_tls_1_2_says_it_in_the_handshake(site: Site, tmp_path: Path, which: str, says: str) -> None:
    pair = wrong_pair(site, tmp_path, which)
    files = (pair.cert, pair.key) if pair else (None, None)
    tls = Tls.read(site.authority.ca, *files).context()
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with Network() as network:
        one = ConnectionHarness(network, ConnectionSettings(BrokerAddress.parse(site.url("mutual")), tls=tls))
        if which == "none":
            says = "it may require a client certificate"  # it has no word of its own for that
        assert re.search(says, one.next(ConnectRefused).reason)


def wrong_pair(site: Site, directory: Path, which: str) -> Pair | None:
    match which:
        case "foreign":
            return Authority(directory / "foreign", "elsewhere").client("7")
        case "expired":
            return site.authority.client("expired-client", begins=-30, ends=-1)
        case "revoked":
            return site.revoked
        case _:
            return None


@pytest.mark.parametrize("program", ["fl-aggregator", "fl-edge"])
def test_the_wrong_kind_of_port_ends_a_start(site: Site, tmp_path: Path, program: str) -> None:
    plain = f"mqtts://{LOOPBACK}:{site.broker.port}"
    ends_at_once(
        tmp_path,
        program,
        plain,
        ["--ca", str(site.authority.ca)],
        "this port does not use TLS.*mqtt://",
    )
    encrypted = f"mqtt://{LOOPBACK}:{site.doors['server']}"
    ends_at_once(
        tmp_path, program, encrypted, [], rf"requires TLS: write mqtts://127.0.0.1:{site.doors['server']}"
    )


def test_without_ca_the_system_says_whom_to_trust(site: Site, tmp_path: Path) -> None:
    ends_at_once(tmp_path, "fl-edge", site.url("server"), [], "an authority that is not trusted")
    environment = os.environ | {"SSL_CERT_FILE": str(site.authority.ca)}
    trusting = programs.run("fl-aggregator", "stop", "--broker", site.url("server"), environment=environment)
    assert "no run is online" in trusting.stderr, trusting.stderr


def ends_at_once(directory: Path, program: str, url: str, options: list[str], says: str) -> None:
    if program == "fl-edge":
        more = ["--id", "7", "--task", "synthetic-10", "--state-dir", str(directory / "state")]
    else:
        more = ["start", "--task", "synthetic-10", "--run-dir", str(directory / "run")]
    ended = run_here(directory, (program, *more, "--broker", url, *options), {})
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line]
    assert len(lines) == 1, ended.stderr
    assert re.search(says, lines[0]), lines[0]


# --- what goes over it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "stock"),
    [
        pytest.param("TLSv1_3", "", id="TLSv1_3-shortcuts"),
        pytest.param("TLSv1_2", "1", id="TLSv1_2-stock"),
        pytest.param("TLSv1_2", "", id="TLSv1_2-shortcuts", marks=pytest.mark.long),
        pytest.param("TLSv1_3", "1", id="TLSv1_3-stock", marks=pytest.mark.long),
    ],
)
def test_messages_of_any_size_pass_over_tls(site: Site, version: str, stock: str) -> None:
    """In a process of its own, since the kind of client is chosen at the first use."""
    pair = site.authority.client("peer")
    arguments = [site.url("mutual"), str(site.authority.ca), str(pair.cert), str(pair.key)]
    arguments += [version, *map(str, SIZES)]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.tls_echo", *arguments],
        env=os.environ | {"FL_STOCK_PAHO": stock},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout == "all came\n", ended.stderr


def test_a_run_over_mutual_tls(site: Site, tmp_path: Path) -> None:
    tls = ["--ca", str(site.authority.ca)]
    arguments = [*tls, *site.authority.client("boss").options, "--task", "synthetic-5000"]
    edge = [*tls, *site.authority.client("edges").options, "--task", "synthetic-5000", "--role", "train"]
    plan = ["--clients", "3", "--per-round", "3", "--rounds", "2", "--prefix", "over-tls"]
    with (
        programs.edges(tmp_path / "edges", site.url("mutual"), "0-2", *edge, "--prefix", "over-tls"),
        programs.aggregator(tmp_path, site.url("mutual"), *arguments, *plan) as aggregator,
    ):
        aggregator.ends_well()
    assert [line["outcome"] for line in programs.history(tmp_path) if line.get("outcome")][-1] == "committed"


# --- under a running program ------------------------------------------------------------------------------------


def test_a_certificate_that_goes_wrong_later_is_said_and_tried_again(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    good, expired = authority.broker(), authority.broker("expired", begins=-30, ends=-1)
    port, shown = free_port(), tmp_path / "shown.crt"
    key = tmp_path / "shown.key"

    def show(pair: Pair) -> None:
        shown.write_bytes(pair.cert.read_bytes())
        key.write_bytes(pair.key.read_bytes())

    show(good)
    lines = [f"listener {port} {LOOPBACK}", f"certfile {shown}", f"keyfile {key}"]
    broker = Mosquitto(tmp_path, extra=lines)
    address = BrokerAddress(LOOPBACK, port, scheme="mqtts")
    settings = ConnectionSettings(address, tls=Tls.read(authority.ca, None, None).context(), retry_cap=0.3)
    try:
        with Network() as network, Network() as elsewhere:
            one = ConnectionHarness(network, settings)
            one.next(Connected)
            show(expired)
            broker.restart()
            while "certificate has expired" not in one.next(Lost).reason:
                pass
            # A connection that this program opens only now is no start of it.
            later = ConnectionHarness(network, settings)
            assert "certificate has expired" in later.next(Lost).reason
            # For another program it is.
            stranger = ConnectionHarness(elsewhere, settings)
            assert "certificate has expired" in stranger.next(ConnectRefused).reason
            with pytest.raises(BrokerRefused, match="certificate has expired"):
                stranger.connection.wait_connected(1)
            show(good)
            broker.restart()
            one.next(Connected)
            later.next(Connected)
    finally:
        broker.stop()


def test_an_edge_lives_through_a_change_of_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    pair, expired = authority.broker(), authority.broker("expired", begins=-30, ends=-1)
    good = (pair.cert.read_bytes(), pair.key.read_bytes())
    port = free_port()
    broker = Mosquitto(
        tmp_path, extra=[f"listener {port} {LOOPBACK}", f"certfile {pair.cert}", f"keyfile {pair.key}"]
    )
    url, options = f"mqtts://{LOOPBACK}:{port}", ("--ca", str(authority.ca), "--task", "synthetic-10")
    try:
        with programs.edges(tmp_path / "edge", url, "7", *options) as edge:
            wait_until(lambda: "connected to" in edge.err, 20, "the edge is connected")
            pair.cert.write_bytes(expired.cert.read_bytes())
            pair.key.write_bytes(expired.key.read_bytes())
            broker.restart()
            wait_until(lambda: "has expired" in edge.err, 20, "the edge says what is wrong")
            pair.cert.write_bytes(good[0])
            pair.key.write_bytes(good[1])
            broker.restart()
            wait_until(lambda: edge.err.count("connected to") == 2, 20, f"it is back: {edge.err}")
            assert edge.running()
    finally:
        broker.stop()


# --- secrets ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("command_lines")
@pytest.mark.long
def test_no_password_is_in_a_process_list_or_a_log(tmp_path: Path) -> None:
    secret = "kX9wq3T7vLm2"
    authority = Authority(tmp_path / "authority")
    pair, port, passwords = authority.broker(), free_port(), tmp_path / "passwd"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "web", secret], check=True)
    given = tmp_path / "password.txt"
    given.write_text(secret + "\n")
    lines = [f"listener {port} {LOOPBACK}", f"certfile {pair.cert}", f"keyfile {pair.key}"]
    broker = Mosquitto(tmp_path, extra=[f"password_file {passwords}", *lines], allow_anonymous=False)
    url, tls = f"mqtts://web@{LOOPBACK}:{port}", ("--ca", str(authority.ca), "--password-file", str(given))
    options = (*tls, "--task", "synthetic-5000", "-v", "--rounds", "1")
    try:
        with (
            programs.aggregator(tmp_path, url, *options, "--clients", "2", "--per-round", "2") as aggregator,
            programs.edges(tmp_path / "edges", url, "0-1", *tls, "--task", "synthetic-5000", "-v") as edges,
        ):
            wait_until(lambda: "connected to" in edges.err, 20, "the edges are connected")
            seen = [command_line(pid) for each in (aggregator, edges) for pid in family(each)]
            aggregator.ends_well()
            written = aggregator.output + edges.output
    finally:
        broker.stop()
    assert any(b"fl-edge" in line for line in seen)
    assert not [line for line in seen if secret.encode() in line]
    assert secret not in written
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes(), file


def family(program: Program) -> list[int]:
    return [program.pid, *programs.descendants(program.pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
