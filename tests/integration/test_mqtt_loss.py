"""Connections that are lost, found again and ended, on a real Mosquitto."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from fl_shared.mqtt.events import Connected, Lost, Received, Will
from fl_shared.mqtt.network import Network
from tests.support.broker import Mosquitto
from tests.support.connection_harness import NEVER, ConnectionHarness, connected, settings
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import DEADLINE, wait_until

pytestmark = pytest.mark.broker


def test_after_a_killed_broker_only_what_is_published_again_is_sent(
    network: Network, mosquitto: Mosquitto
) -> None:
    one = connected(network, mosquitto)
    # Nothing is acknowledged, and most not even handed to the socket, when the broker goes.
    mosquitto.freeze()
    for i in range(60):
        assert one.connection.publish(f"old/{i}", b"old", retain=True)
    mosquitto.kill()
    lost = one.next(Lost)
    assert lost.failures == 0
    assert not one.connection.publish("old/offline", b"old")
    assert not one.connection.subscribe([("old/#", 1)])
    failed = one.next(Lost)
    assert failed.failures == 1
    assert "connection refused" in failed.reason
    mosquitto.start()
    one.next(Connected)
    one.subscribed("#")
    assert one.connection.publish("new", b"new")
    assert one.next(Received) == Received("new", b"new", False, 1)
    assert one.quiet_for(0.3) == []


def test_a_broker_that_restarts_is_found_again_and_again(network: Network, mosquitto: Mosquitto) -> None:
    one = connected(network, mosquitto)
    for _ in range(3):
        mosquitto.stop()
        assert one.next(Lost).failures == 0
        mosquitto.start()
        assert isinstance(one.connection.wait_connected(DEADLINE), Connected)
        one.next(Connected)
        one.subscribed("again")


def test_a_silent_broker_is_noticed_by_the_keepalive(network: Network, mosquitto: Mosquitto) -> None:
    with TcpProxy(mosquitto.port) as proxy:
        one = ConnectionHarness(network, settings(proxy, keepalive=2, connect_timeout=0.5))
        busy = connected(network, mosquitto, keepalive=60)
        # The broker ends a connection 3 s after its last packet: the second answer comes after that.
        wait_until(lambda: proxy.traffic.pings >= 2, DEADLINE, "an idle connection pings")
        assert [type(event) for event in list(one.events.queue)] == [Connected]
        mosquitto.freeze()
        lost = one.next(Lost)
        assert "nothing received from the broker" in lost.reason
        assert "did not answer" in one.next(Lost).reason
        mosquitto.thaw()
        one.next(Connected)
        assert busy.connection.limits is not None


def test_a_slow_upload_longer_than_the_keepalive_gets_through(
    network: Network, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link takes 400 kB/s: 2.4 MB are 6 s, the keepalive is 1 s, and a PINGREQ waits behind them."""
    connect = socket.create_connection

    def connect_with_small_buffer(*args: Any, **options: Any) -> socket.socket:
        # Loopback would take megabytes into its send buffer at once, as no slow link does.
        made = connect(*args, **options)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        return made

    with TcpProxy(mosquitto.port) as proxy:
        proxy.limit(400_000)
        monkeypatch.setattr(socket, "create_connection", connect_with_small_buffer)
        one = ConnectionHarness(network, settings(proxy, keepalive=1))
        one.connection.wait_connected(DEADLINE)
        monkeypatch.undo()
        hub = connected(network, mosquitto)
        hub.subscribed("slow")
        begin = time.monotonic()
        assert one.connection.publish("slow", bytes(1_200_000))
        assert one.connection.publish("slow", bytes(1_200_000))
        for _ in range(2):
            assert len(hub.next(Received, 30).payload) == 1_200_000
        assert time.monotonic() - begin > 3.0, "the relay is not slow"
        # The broker ends an idle connection after 1.5 s.
        before = proxy.traffic.pings
        wait_until(
            lambda: proxy.traffic.pings >= before + 2, DEADLINE, "the connection lives on by its pings"
        )
        assert one.connection.limits is not None
        assert [type(event) for event in list(one.events.queue)] == [Connected]


def test_the_will_of_a_killed_process_is_sent(network: Network, shared_mosquitto: Mosquitto) -> None:
    watcher = connected(network, shared_mosquitto)
    watcher.subscribed("wills/process")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.process_with_will", shared_mosquitto.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"connected\n"
    finally:
        process.kill()
        process.communicate()
    assert watcher.next(Received) == Received("wills/process", b"gone", False, 1)


def test_a_graceful_close_flushes_and_keeps_the_will_and_another_does_not(
    network: Network, shared_mosquitto: Mosquitto
) -> None:
    watcher = connected(network, shared_mosquitto)
    watcher.subscribed("wills/kept/#")
    one = connected(network, shared_mosquitto, will=Will("wills/kept/1", b"gone"))
    for _ in range(100):
        assert one.connection.publish("wills/kept/bulk", bytes(100_000))
    one.connection.close()
    assert not one.connection.publish("wills/kept/late", b"")
    assert [watcher.next(Received).topic for _ in range(100)] == ["wills/kept/bulk"] * 100
    assert watcher.quiet_for(0.2) == []
    assert one.events.empty(), "no event follows a close"

    two = connected(network, shared_mosquitto, will=Will("wills/kept/2", b"gone"))
    two.connection.close(graceful=False)
    assert watcher.next(Received) == Received("wills/kept/2", b"gone", False, 1)


def test_a_graceful_close_waits_no_longer_than_it_was_told(network: Network, mosquitto: Mosquitto) -> None:
    one = connected(network, mosquitto)
    mosquitto.freeze()
    for _ in range(40):
        assert one.connection.publish("stuck", bytes(1_000_000))
    one.connection.close(timeout=0.5)
    assert one.connection.wait_closed(DEADLINE)
    other = ConnectionHarness(network, settings(mosquitto))
    other.connection.close(timeout=NEVER)  # what is not connected has nothing to send
    mosquitto.thaw()
