"""First connections that fail, refusals, and what is no broker at all."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from fl_aggregator.tools.remote.predict import Request, request_prediction
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import BrokerRefused, BrokerUnreachable, RunFailed
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import (
    Connected,
    ConnectionEvent,
    ConnectionSettings,
    ConnectRefused,
    Lost,
    Received,
)
from fl_shared.mqtt.network import Network
from tests.support.answering_server import CONNACK_WITHOUT_SHARED, one_answer
from tests.support.broker import Mosquitto
from tests.support.connection_harness import ConnectionHarness, connected, settings
from tests.support.wait import DEADLINE, wait_until

pytestmark = pytest.mark.broker


def test_a_bad_password_is_refused_for_good(network: Network, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "edge-7", "right"], check=True)
    broker = Mosquitto(tmp_path, extra=[f"password_file {passwords}"], allow_anonymous=False)
    try:
        account = BrokerAddress("127.0.0.1", broker.port, "edge-7")
        good = ConnectionHarness(network, ConnectionSettings(account, password="right"))
        good.connection.wait_connected(DEADLINE)
        for wrong in (
            ConnectionSettings(account, password="wrong", retry_cap=0.1),
            ConnectionSettings(account, retry_cap=0.1),
            ConnectionSettings(broker.address, retry_cap=0.1),
        ):
            attempts = broker.log().count("New connection")
            one = ConnectionHarness(network, wrong)
            with pytest.raises(
                BrokerRefused, match=r"refused the connection: Not authorized.*FL_PASSWORD"
            ) as caught:
                one.connection.wait_connected(DEADLINE)
            assert caught.value.exit_code == 2
            assert one.next(ConnectRefused).code == 0x87
            time.sleep(0.5)
            assert broker.log().count("New connection") == attempts + 1, "it does not ask again"
            assert not one.connection.publish("a", b"")
            one.connection.close()
        assert "wrong" not in repr(ConnectionSettings(account, password="wrong"))
    finally:
        broker.stop()


def test_what_may_not_be_written_is_said_with_topic_and_account(
    network: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    passwords, acl = tmp_path / "passwords", tmp_path / "acl"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "edge-7", "right"], check=True)
    acl.write_text("user edge-7\ntopic readwrite mine\n")
    extra = [f"password_file {passwords}", f"acl_file {acl}"]
    broker = Mosquitto(tmp_path, extra=extra, allow_anonymous=False)
    try:
        access = BrokerAccess(BrokerAddress("127.0.0.1", broker.port, "edge-7"), "right")
        one = ConnectionHarness(network, access.connection_settings())
        one.connection.wait_connected(DEADLINE)
        one.subscribed("mine")
        for _ in range(12):
            assert one.connection.publish("mine", b"good")
            assert one.connection.publish("fl/register/7", b"bad")
        for _ in range(12):
            one.next(Received)
        one.connection.close()  # the broker has acknowledged all
        lines = [record.getMessage() for record in caplog.records if "refuses" in record.getMessage()]
        where = f"mqtt://edge-7@127.0.0.1:{broker.port} refuses what is published on fl/register/7"
        assert lines == [
            f"{where}: Not authorized (0x87, {count} so far): check the rights of user edge-7"
            for count in (1, 10)
        ]
    finally:
        broker.stop()


def test_a_first_connection_says_what_is_wrong_and_goes_on_trying(
    network: Network, mosquitto: Mosquitto
) -> None:
    port = mosquitto.port
    mosquitto.stop()
    one = ConnectionHarness(network, settings(mosquitto))
    one.next(Lost)
    with pytest.raises(BrokerUnreachable, match=rf"nothing listens on port {port} of 127.0.0.1") as caught:
        one.connection.wait_connected(0.1)
    assert caught.value.exit_code == 2
    mosquitto.start()
    one.connection.wait_connected(DEADLINE)
    for host, says in (
        ("nowhere.invalid", "cannot be resolved"),
        ("a" * 80, "not a host name"),
        ("a..b", "not a host name"),
    ):
        lost = ConnectionHarness(network, ConnectionSettings(BrokerAddress(host)))
        assert says in lost.next(Lost, 30).reason
        lost.connection.close()


@pytest.mark.parametrize(
    ("sends", "says"),
    [
        (None, "did not answer within 0.3 s"),
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n" * 20, r"not MQTT 5|did not answer|closed the connection"),
        (b"\x20\x7f" + b"\xff" * 127, "not MQTT 5"),
        (b"\x20\x02\x00\x01", "Unsupported protocol version"),
        (b"\x20\x03\x00\x89\x00", "Server busy.*max_connections"),
        (b"\x20\x03\x00\x97\x00", "Quota exceeded.*max_connections"),
    ],
    ids=["silent", "closes", "ssh", "garbage", "mqtt-3", "busy", "quota"],
)
def test_what_is_no_broker_is_named(network: Network, sends: bytes | None, says: str) -> None:
    with one_answer(sends) as port:
        one = ConnectionHarness(
            network, ConnectionSettings(BrokerAddress("127.0.0.1", port), connect_timeout=0.3)
        )
        wait_until(lambda: not one.events.empty(), DEADLINE, "an attempt has failed")
        with pytest.raises((BrokerUnreachable, BrokerRefused), match=says):
            one.connection.wait_connected(0.1)


def test_odd_bytes_from_a_broker_do_no_harm(network: Network, shared_mosquitto: Mosquitto) -> None:
    """A topic that is not UTF-8 is dropped, what follows it arrives; other connections do not notice."""
    connack = b"\x20\x03\x00\x00\x00"
    bad_topic = b"\x30\x05\x00\x02\xff\xfe\x00"
    bad_properties = b"\x30\x06\x00\x01a\x7f\xff\xff"
    good = b"\x30\x05\x00\x01a\x00\xff"
    healthy = connected(network, shared_mosquitto)
    goodbye = b"\xe0\x02\x8b\x00"
    with one_answer(connack + goodbye) as port:
        one = ConnectionHarness(network, ConnectionSettings(BrokerAddress("127.0.0.1", port)))
        assert one.next(Lost) == Lost("the broker closed the connection: Server shutting down", 0)
        one.connection.close(graceful=False)
    with one_answer(connack + bad_topic + good + bad_properties + good) as port:
        one = ConnectionHarness(network, ConnectionSettings(BrokerAddress("127.0.0.1", port)))
        one.next(Connected)
        assert one.events.get(timeout=DEADLINE) == Received("a", b"\xff", False, 0)
        assert "not MQTT 5" in one.next(Lost).reason
        one.connection.close(graceful=False)
    assert healthy.connection.publish("odd", b"")
    network.check()


def test_a_handler_that_raises_is_our_bug_and_surfaces(shared_mosquitto: Mosquitto) -> None:
    network = Network()

    def broken(event: ConnectionEvent) -> None:
        if isinstance(event, Received):
            raise ZeroDivisionError("a mistake of ours")

    one = network.connect(settings(shared_mosquitto), broken)
    other = connected(network, shared_mosquitto)
    one.wait_connected(DEADLINE)
    network.check()
    one.subscribe([("broken", 1)])
    other.subscribed("broken")
    assert other.connection.publish("broken", b"")
    other.next(Received)
    other.connection.publish("broken", b"the thread goes on")
    assert other.next(Received).payload
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        network.check()
    network.close()


def test_a_prediction_by_any_edge_says_that_the_broker_lacks_shared_subscriptions() -> None:
    for client, says in (
        (None, r"has no shared subscriptions.*name the edge \(--client ID\)"),
        ("7", r"is edge '7' online"),
    ):
        with one_answer(CONNACK_WITHOUT_SHARED) as port:
            reach = BrokerAccess(BrokerAddress("127.0.0.1", port))
            with pytest.raises(RunFailed, match=says):
                request_prediction(reach, Request(b"{}", "fl", client), 1.0)
