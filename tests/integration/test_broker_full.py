"""A broker that has as many clients as it allows: the reason names its setting."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_shared.errors import BrokerUnreachable
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import ConnectionSettings, Lost
from fl_shared.mqtt.network import Network
from tests.support.broker import Mosquitto
from tests.support.client import Client, ConnectionRefused, Endpoint
from tests.support.connection_harness import ConnectionHarness, settings
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned
from tests.support.wait import DEADLINE

pytestmark = pytest.mark.broker

FULL = "max_connections 1"
SAID = "max_connections of the listener"


def clients_that_fill(endpoint: Endpoint) -> ExitStack:
    """As many clients as the broker takes: with a limit of one, 2.0.11 took two after another had left."""
    stack = ExitStack()
    with contextlib.suppress(ConnectionRefused):
        for _ in range(10):
            stack.enter_context(Client(endpoint))
        raise AssertionError("the broker is never full")
    return stack


def test_a_full_broker_is_named_until_it_has_room(tmp_path: Path, network: Network) -> None:
    broker = Mosquitto(tmp_path, extra=[FULL])
    try:
        with clients_that_fill(broker.endpoint):
            one = ConnectionHarness(network, settings(broker))
            for _ in range(3):
                assert SAID in one.next(Lost).reason
            with pytest.raises(BrokerUnreachable, match=SAID):
                one.connection.wait_connected(0.1)
        one.connection.wait_connected(DEADLINE)
        one.connection.close()
        with clients_that_fill(broker.endpoint):  # it was reached before
            again = ConnectionHarness(network, settings(broker))
            assert SAID in again.next(Lost).reason
    finally:
        broker.stop()


def test_a_full_broker_with_tls_is_named(tmp_path: Path, network: Network) -> None:
    made = provisioned(tmp_path / "kits", [("0", ("train",)), ("1", ("train",))])
    conf = made.broker_directory / "mosquitto.conf"
    conf.write_text(conf.read_text() + FULL + "\n")
    kit = kit_of(made, "0")
    with ProvisionedBroker(made), clients_that_fill(Endpoint.of(kit_of(made, "1"))):
        one = ConnectionHarness(
            network, ConnectionSettings(BrokerAddress.parse(kit.broker), tls=kit.ssl_context(), retry_cap=0.1)
        )
        for _ in range(3):
            assert SAID in one.next(Lost).reason
