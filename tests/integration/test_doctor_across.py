"""``doctor --also``: what crosses between two Mosquittos with a bridge, and between two without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_aggregator.tools.doctor import across, delivery
from fl_aggregator.tools.doctor.bench import ProbeSession
from fl_aggregator.tools.doctor.findings import Finding
from fl_aggregator.tools.provision.bridges import bridge_lines
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import ConnectionSettings
from fl_shared.system.mosquitto import LOOPBACK
from tests.support.answering_server import CONNACK_WITHOUT_SHARED, one_answer
from tests.support.broker import Mosquitto
from tests.support.client import Client

pytestmark = pytest.mark.broker


def session(broker: BrokerAddress) -> ProbeSession:
    opened = ProbeSession(ConnectionSettings(broker), "fl")
    opened.read_connack()
    return opened


@pytest.fixture(params=["mqttv50", "mqttv311"])
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Mosquitto, Mosquitto]]:
    directories = [tmp_path / name for name in ("hub", "b")]
    for directory in directories:
        directory.mkdir()
    hub = Mosquitto(directories[0])
    lines = bridge_lines("B", f"{LOOPBACK}:{hub.port}", "fl", version=request.param)
    bridged = Mosquitto(directories[1], extra=lines)
    with Client(hub.endpoint, "fl/brokers/B") as watcher:
        watcher.wait_for(lambda heard: heard.payload == b"1", "the bridge")
    yield request.param, hub, bridged
    bridged.stop()
    hub.stop()


def verdicts(here: ProbeSession, there: ProbeSession) -> dict[str, Finding]:
    return {check.__name__: check(here, there) for check in across.CROSS_CHECKS}


def test_over_a_bridge(pair: tuple[str, Mosquitto, Mosquitto]) -> None:
    version, hub, bridged = pair
    here, there = session(hub.address), session(bridged.address)
    found = verdicts(here, there)
    here.clear_retained()
    there.clear_retained()
    fine = {"messages", "retained", "wildcards", "wills"} | ({"answers"} if version == "mqttv50" else set())
    assert {name for name, one in found.items() if one.verdict == "ok"} == fine, found
    assert found["shared"].verdict == "limited", "each broker deals a request to one of its own"
    assert "40 copies of 20 requests" in found["shared"].detail
    assert version == "mqttv50" or "lost: answers go to fl/predictions" in found["answers"].detail
    for broker in (hub, bridged):
        with Client(broker.endpoint, "fl/doctor/#") as later:
            later.catch_up()
            assert later.retained == {}, "nothing is left behind"


def test_without_a_bridge_nothing_crosses(tmp_path: Path, mosquitto: Mosquitto) -> None:
    (tmp_path / "other").mkdir()
    other = Mosquitto(tmp_path / "other")
    try:
        found = across.messages(session(mosquitto.address), session(other.address))
    finally:
        other.stop()
    assert (found.verdict, found.detail) == ("missing", "0 and 0 of 20 messages arrived at the other broker")


def test_no_shared_subscription_is_asked_of_a_broker_without_them(mosquitto: Mosquitto) -> None:
    """It may end a connection that asks for one."""
    with one_answer(CONNACK_WITHOUT_SHARED) as port:
        found = across.shared(session(mosquitto.address), session(BrokerAddress(LOOPBACK, port)))
    assert (found.verdict, found.effect) == ("limited", delivery.WITHOUT_SHARED)
