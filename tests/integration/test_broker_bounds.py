"""What one account can have a provisioned Mosquitto keep for it: bounded by the generated configuration and ACL."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fl_aggregator.tools.provision.broker_files import MAX_KEEPALIVE
from fl_aggregator.tools.provision.kits import Provision
from fl_shared.system.mosquitto import MAX_QUEUED_BYTES
from tests.support.client import Client, Endpoint
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned
from tests.support.wait import DEADLINE

pytestmark = pytest.mark.broker

NEVER = 2**32 - 1
"""Session Expiry Interval: the session never ends (MQTT 5, 3.1.2.11.2)."""
MEBIBYTE = 2**20
QUEUE = 4 * MEBIBYTE
"""Instead of the configured 256 MiB, so that the test is fast."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Provision]:
    provision = provisioned(tmp_path / "kits", [("3", ("train",))])
    conf = provision.broker_directory / "mosquitto.conf"
    text = conf.read_text()
    assert f"max_queued_bytes {MAX_QUEUED_BYTES}\n" in text
    assert "persistent_client_expiration 1h\n" in text
    conf.write_text(text.replace(str(MAX_QUEUED_BYTES), str(QUEUE)))
    with ProvisionedBroker(provision):
        yield provision


class Sleeper:
    """A client of edge 3 whose session outlives its connections."""

    def __init__(self, endpoint: Endpoint, *, clean_start: bool, keepalive: int = 60) -> None:
        self.connected: queue.Queue[Any] = queue.Queue()
        self.received: queue.Queue[bytes] = queue.Queue()
        self.granted: queue.Queue[Any] = queue.Queue()
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, "sleeper", protocol=paho.MQTTv5)
        client.tls_set_context(endpoint.tls)
        client.on_connect = lambda _c, _u, _f, _code, properties: self.connected.put(properties)
        client.on_message = lambda _c, _u, message: self.received.put(bytes(message.payload))
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self.granted.put(codes)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = NEVER
        client.connect(
            endpoint.host, endpoint.port, keepalive, clean_start=clean_start, properties=properties
        )
        client.loop_start()
        self.connack = self.connected.get(timeout=DEADLINE)

    def subscribe(self, topic_filter: str) -> None:
        self._client.subscribe(topic_filter, 1)
        self.granted.get(timeout=DEADLINE)

    def leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_an_absent_clients_queue_is_bounded(made: Provision) -> None:
    endpoint = Endpoint.of(kit_of(made, "3"))
    sleeper = Sleeper(endpoint, clean_start=True)
    sleeper.subscribe("fl/model/#")
    sleeper.leave()
    with Client(Endpoint.of(kit_of(made, "aggregator"))) as aggregator:
        for number in range(20):
            assert aggregator.publish(f"fl/model/0123456789ab/{number}", bytes(MEBIBYTE)) < 0x80
        woken = Sleeper(endpoint, clean_start=False)
        kept = [woken.received.get(timeout=DEADLINE) for _ in range(QUEUE // MEBIBYTE)]
        assert aggregator.publish("fl/model", b"newest") < 0x80
        deadline = time.monotonic() + DEADLINE
        while kept[-1] != b"newest":
            kept.append(woken.received.get(timeout=max(0.01, deadline - time.monotonic())))
        woken.leave()
    assert len(kept[:-1]) <= QUEUE // MEBIBYTE + 1, "the message that reaches the limit is kept, too"


def test_a_client_that_vanishes_is_noticed_whatever_keepalive_it_asked_for(made: Provision) -> None:
    """A keepalive of 0 would keep its connection, and a queue for it, for ever."""
    client = Sleeper(Endpoint.of(kit_of(made, "3")), clean_start=True, keepalive=0)
    assert client.connack.ServerKeepAlive == MAX_KEEPALIVE
    client.leave()
