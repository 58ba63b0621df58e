"""A star of two brokers with the files of ``provision --brokers``: TLS, accounts and ACL hold across the bridge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_aggregator.tools.provision import kits
from fl_aggregator.tools.provision.accounts import BrokerLocation
from fl_shared.security.kit import Kit
from fl_shared.system.mosquitto import LOOPBACK
from tests.support.client import NOT_AUTHORISED, Client, Endpoint
from tests.support.ports import free_port
from tests.support.provisioned_broker import ProvisionedBroker

pytestmark = pytest.mark.broker


@pytest.fixture
def star(tmp_path: Path) -> Iterator[tuple[Endpoint, Endpoint, Endpoint]]:
    """The aggregator at the hub, the operator at B, and edge 0 at B."""
    out = tmp_path / "kits"
    place = BrokerLocation(
        hosts=(LOOPBACK, "b.example"), port=free_port(), prefix="fl", passwords=False, days=30, bridged=("B",)
    )
    made, _ = kits.create_provision(out, place, [("0", ("train",))], force=False)
    port = free_port()

    def endpoint(kit: str, port: int) -> Endpoint:
        return Endpoint(port, Kit.read(out / f"{kit}.zip").ssl_context())

    with ProvisionedBroker(made), ProvisionedBroker(made, bridged="B", port=port):
        yield endpoint("aggregator", place.port), endpoint("operator", port), endpoint("edge-0", port)


def test_what_may_cross_crosses(star: tuple[Endpoint, Endpoint, Endpoint]) -> None:
    aggregator, operator, edge = star
    with Client(aggregator, "fl/#") as hub, Client(operator, "fl/#") as watcher, Client(edge) as edge_0:
        hub.wait_for(lambda heard: (heard.topic, heard.payload) == ("fl/brokers/B", b"1"), timeout=30.0)
        assert edge_0.publish("fl/register/0", b"{}") < 0x80
        hub.wait_for(lambda heard: heard.topic == "fl/register/0")
        assert edge_0.publish("fl/register/1", b"{}") == NOT_AUTHORISED
        assert hub.publish("fl/status", b"{}", retain=True) < 0x80
        watcher.wait_for(lambda heard: heard.topic == "fl/status")
        assert watcher.publish("fl/control", b"{}") < 0x80
        hub.wait_for(lambda heard: heard.topic == "fl/control")
