"""A simulation that is resumed begins when its edges are online, however long their programs take to start."""

from __future__ import annotations

import threading
from typing import Literal

import pytest

from fl_mqtt.simulation.edges_online import wait_for_edges
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support.broker import Mosquitto
from tests.support.client import Client

pytestmark = pytest.mark.broker

NAMES = ("0", "1")


def tell(client: Client, name: str, state: Literal["online", "offline"]) -> None:
    presence = m.ClientPresence(client=name, session="s", state=state)
    client.publish(t.PresenceTopic(name), presence, retain=True)


def waiting(broker: Mosquitto, ended: threading.Event, timeout: float = 60.0) -> threading.Thread:
    access = BrokerAccess(broker.address)
    thread = threading.Thread(target=wait_for_edges, args=(access, NAMES, ended.is_set, timeout), daemon=True)
    thread.start()
    return thread


def test_it_waits_for_all_of_them(shared_mosquitto: Mosquitto) -> None:
    with Client(shared_mosquitto.endpoint) as client:
        tell(client, "0", "online")
        tell(client, "1", "offline")
        thread = waiting(shared_mosquitto, threading.Event())
        thread.join(1.0)
        assert thread.is_alive(), "edge 1 is not there"
        tell(client, "1", "online")
        thread.join(30.0)
        assert not thread.is_alive()
        for name in NAMES:
            client.publish(t.PresenceTopic(name), b"", retain=True)


def test_it_ends_with_their_program(shared_mosquitto: Mosquitto) -> None:
    ended = threading.Event()
    thread = waiting(shared_mosquitto, ended)
    ended.set()
    thread.join(30.0)
    assert not thread.is_alive()


def test_it_goes_on_without_them_and_says_so(
    shared_mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    wait_for_edges(BrokerAccess(shared_mosquitto.address), NAMES, lambda: False, 0.5)
    assert "2 of 2 edges are not online (0, 1)" in caplog.text
