"""A network's connections."""

from __future__ import annotations

from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import ConnectionEvent, ConnectionSettings
from fl_shared.mqtt.network import Network
from tests.support.counted_lines import lines_of

NOWHERE = ConnectionSettings(BrokerAddress.parse("mqtt://127.0.0.1:9"), retry_first=60.0, retry_cap=60.0)


def ignore(_event: ConnectionEvent) -> None:
    pass


def test_a_connection_costs_the_same_among_more_connections() -> None:
    """A fleet makes thousands."""
    with Network() as network:
        few = lines_of(lambda: network.connect(NOWHERE, ignore))
        for _ in range(100):
            network.connect(NOWHERE, ignore)
        assert lines_of(lambda: network.connect(NOWHERE, ignore)) <= 1.2 * few


def test_a_connection_that_is_closed_is_forgotten() -> None:
    with Network() as network:
        connection = network.connect(NOWHERE, ignore)
        connection.close()
        assert not network._connections
