"""Measures the throughput of our MQTT client and of stock paho, between two processes through Mosquitto.

    python benchmarks/mqtt_throughput.py
    python benchmarks/mqtt_throughput.py --sizes 1024 262144 --runs 3 --seconds 0.5
    python benchmarks/mqtt_throughput.py --transport mqtts    (or ws, wss)

Publisher and subscriber are a `Network` each, with one connection at QoS 1 and TCP_NODELAY on all sides. A
run lasts from the first ``publish`` to the last message at the subscriber. Runs with and without
`mqtt.shortcuts` (``FL_STOCK_PAHO=1``) alternate, and medians are compared. The broker's queue is unlimited
here: with the default of 1000 messages, it drops further ones. With TLS, both sides show certificates. Over
WebSockets, stock paho loses data that a socket does not accept at once, and is left out. ``cpu`` is the
processor time of the client per message, in microseconds. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

from fl_aggregator.tools.provision.authority import Authority, new_serial
from fl_shared.errors import QueueFull
from fl_shared.mqtt.address import BrokerAddress, UrlScheme
from fl_shared.mqtt.events import ConnectionEvent, ConnectionSettings, Received, Subscribed
from fl_shared.mqtt.network import Network
from fl_shared.security.tls import Tls
from fl_shared.system.mosquitto import (
    LOOPBACK,
    Listener,
    configuration,
    find_mosquitto,
    free_port,
    is_running,
)

SIZES: Final = (1024, 262_144, 1_048_576, 1_700_000, 47_000_000)
STOCK: Final = "FL_STOCK_PAHO"
TIMEOUT: Final = 120.0
CA: Final = "ca.pem"


def say(text: str) -> None:
    """Prints a line on standard error at once."""
    print(text, file=sys.stderr, flush=True)


def cpu_seconds() -> float:
    """Processor seconds that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def certified(directory: Path) -> list[str]:
    """Writes certificates to ``directory``. Returns the broker's settings to use and require them."""
    now = datetime.now(UTC)
    authority = Authority.create(directory / "authority", now)
    (directory / CA).write_bytes(authority.pem)
    for name, one in (
        ("broker", authority.issue_broker([LOOPBACK], new_serial(), now, 1)),
        ("client", authority.issue_client("client", new_serial(), now, 1)),
    ):
        (directory / f"{name}.pem").write_bytes(one.cert)
        (directory / f"{name}.key").write_bytes(one.key)
        (directory / f"{name}.key").chmod(0o600)
    files = [
        f"cafile {directory / CA}",
        f"certfile {directory}/broker.pem",
        f"keyfile {directory}/broker.key",
    ]
    return [*files, "require_certificate true"]


@contextlib.contextmanager
def broker(directory: Path, scheme: UrlScheme) -> Iterator[str]:
    """Runs a Mosquitto with an unlimited queue while the block runs. Yields its URL."""
    port = free_port()
    file, log = directory / "mosquitto.conf", directory / "mosquitto.log"
    address = BrokerAddress(LOOPBACK, port, scheme=scheme, path="/mqtt" if scheme in ("ws", "wss") else "")
    extra = certified(directory) if address.is_encrypted else []
    if address.is_websocket:
        extra.append("protocol websockets")
    if os.geteuid() == 0:
        extra.append("user root")  # otherwise it changes to a user that cannot read the key
    extra += ["max_queued_messages 10000000", "max_queued_bytes 0"]
    listeners = [Listener(port, LOOPBACK)]
    if address.is_websocket:
        # Mosquitto 2.0.11 does not start with listeners for WebSockets only.
        listeners.insert(0, Listener(free_port(), LOOPBACK))
    file.write_text(configuration(listeners, extra=extra))
    with log.open("wb") as output:
        process = subprocess.Popen([find_mosquitto(), "-c", str(file)], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 10
        while not is_running(log):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"mosquitto does not start:\n{log.read_text()}")
            time.sleep(0.01)
        yield str(address)
    finally:
        process.terminate()
        process.wait(10)


def settings(url: str, directory: Path) -> ConnectionSettings:
    """How to connect to the broker at ``url``, with the client's certificate if it is encrypted."""
    address = BrokerAddress.parse(url)
    if not address.is_encrypted:
        return ConnectionSettings(address)
    tls = Tls.read(directory / CA, directory / "client.pem", directory / "client.key")
    return ConnectionSettings(address, tls=tls.context())


def subscriber(reach: ConnectionSettings, size: int, count: int) -> None:
    """Receives ``count`` messages of ``size`` bytes.

    Prints ``ready``, then the arrival of the last message (`time.monotonic`) and the processor seconds for
    all.
    """
    ready, done = threading.Event(), threading.Event()
    left, at = count, 0.0

    def take(event: ConnectionEvent) -> None:
        nonlocal left, at
        match event:
            case Subscribed():
                ready.set()
            case Received():
                assert len(event.payload) == size
                left -= 1
                if not left:
                    at = time.monotonic()
                    done.set()

    with Network() as network:
        connection = network.connect(reach, take)
        connection.wait_connected(10)
        connection.subscribe([("load", 1)])
        assert ready.wait(10)
        before = cpu_seconds()
        print("ready", flush=True)
        if not done.wait(TIMEOUT):
            raise SystemExit(f"{left} of {count} messages of {size} bytes did not come within {TIMEOUT:g} s")
        print(at, cpu_seconds() - before, flush=True)
        network.check()


def one_run(url: str, directory: Path, size: int, count: int, *, stock: bool) -> tuple[float, float, float]:
    """Measures one run: the seconds, and the processor seconds of publisher and subscriber."""
    os.environ[STOCK] = "1" if stock else ""
    child = subprocess.Popen(
        [sys.executable, __file__, "--subscriber", url, str(directory), str(size), str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    payload = bytes(size)
    with Network() as network:
        connection = network.connect(settings(url, directory), lambda _: None)
        connection.wait_connected(10)
        if child.stdout.readline() != "ready\n":
            raise SystemExit("the subscriber did not start")
        before, begin = cpu_seconds(), time.monotonic()
        for _ in range(count):
            while True:
                try:
                    assert connection.publish("load", payload)
                    break
                except QueueFull:
                    time.sleep(0.0005)
        answer = child.stdout.readline().split()
        if len(answer) != 2:
            raise SystemExit("the subscriber gave up")
        cpu = cpu_seconds() - before
        network.check()
    child.wait(10)
    return float(answer[0]) - begin, cpu, float(answer[1])


def measure(url: str, directory: Path, size: int, runs: int, seconds: float) -> dict[str, Any]:
    """Measures messages of ``size`` bytes ``runs`` times. Returns the medians as an object for JSON."""
    # About as many messages as stock paho moves in the given time.
    count = max(4, min(int(8_000 * seconds), int(300e6 * seconds / size)))
    found: dict[str, list[tuple[float, float, float]]] = {"stock": [], "shortcuts": []}
    if BrokerAddress.parse(url).is_websocket:
        del found["stock"]
    for _ in range(runs):
        for name, results in found.items():
            results.append(one_run(url, directory, size, count, stock=name == "stock"))
    row: dict[str, Any] = {"bytes": size, "messages": count}
    for name, results in found.items():
        middle = statistics.median(result[0] for result in results)
        row[name] = {
            "messages_per_s": round(count / middle, 1),
            "mb_per_s": round(count * size / 1e6 / middle, 1),
            "publisher_cpu": round(statistics.median(result[1] for result in results) / count * 1e6, 1),
            "subscriber_cpu": round(statistics.median(result[2] for result in results) / count * 1e6, 1),
        }
    if "stock" in row:
        row["ratio"] = round(row["shortcuts"]["messages_per_s"] / row["stock"]["messages_per_s"], 2)
    say(json.dumps(row))
    return row


def main() -> None:
    """Measures all sizes; with ``--subscriber``, acts as the subscriber of one run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="bytes of a message")
    parser.add_argument("--runs", type=int, default=7, help="of each kind; the median counts")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long a run of stock paho takes")
    parser.add_argument("--transport", choices=get_args(UrlScheme), default="mqtt")
    parser.add_argument("--subscriber", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.subscriber:
        url, scratch, size, count = arguments.subscriber
        subscriber(settings(url, Path(scratch)), int(size), int(count))
        return
    with tempfile.TemporaryDirectory() as scratch, broker(Path(scratch), arguments.transport) as url:
        rows = [
            measure(url, Path(scratch), size, arguments.runs, arguments.seconds) for size in arguments.sizes
        ]
    found = {"transport": arguments.transport, "qos": 1, "runs": arguments.runs, "sizes": rows}
    print(json.dumps({"benchmark": "mqtt_throughput", **found}))


if __name__ == "__main__":
    main()
