"""What a tool learns of a run over a real broker, and what happens when the broker goes away or refuses."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from fl_aggregator.tools.remote.observer import Observer
from fl_aggregator.tools.remote.remote_run import RemoteRun
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import BrokerUnreachable, UserError
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support.broker import Mosquitto
from tests.support.client import NOT_AUTHORISED, Client
from tests.support.samples import MESSAGES

pytestmark = pytest.mark.broker

DEADLINE = 20.0
BIRTH, STATUS = (MESSAGES[name][1] for name in ("aggregator", "status"))


def publish(sender: Client, prefix: str, topic: t.Topic, payload: bytes) -> None:
    assert sender.publish(t.build(prefix, topic), payload, retain=True) < 0x80


def test_birth_and_status_are_kept_and_a_status_that_is_cleared_is_forgotten(
    shared_mosquitto: Mosquitto,
) -> None:
    reach = BrokerAccess(shared_mosquitto.address, prefix="remote/run")
    with Client(shared_mosquitto.endpoint) as sender:
        publish(sender, reach.prefix, t.AggregatorTopic(), codec.encode(BIRTH))
        publish(sender, reach.prefix, t.StatusTopic(), codec.encode(STATUS))
        with Observer(reach) as run:
            assert run.wait_for(lambda: run.status == STATUS and run.born == BIRTH, DEADLINE)
            assert run.is_online
            assert run.live_at is None, "it was there before us"
            publish(sender, reach.prefix, t.StatusTopic(), codec.encode(STATUS))
            assert run.wait_for(lambda: run.live_at is not None, DEADLINE)
            publish(sender, reach.prefix, t.StatusTopic(), b"what is this?")
            publish(sender, reach.prefix, t.StatusTopic(), b"")
            assert run.wait_for(lambda: run.status is None, DEADLINE)


def test_a_wait_ends_at_its_deadline(shared_mosquitto: Mosquitto) -> None:
    with Observer(BrokerAccess(shared_mosquitto.address, prefix="remote/nothing")) as run:
        assert run.wait_for(lambda: run.subscribed, DEADLINE)
        assert not run.wait_for(lambda: run.is_online, 0.3)


def test_it_subscribes_again_when_the_broker_is_back(mosquitto: Mosquitto) -> None:
    reach = BrokerAccess(mosquitto.address)
    with Observer(reach) as run:
        assert run.wait_for(lambda: run.subscribed, DEADLINE)
        mosquitto.kill()
        assert run.wait_for(lambda: run.lost is not None, DEADLINE)
        assert not run.subscribed
        mosquitto.start()
        assert run.wait_for(lambda: run.subscribed, DEADLINE)
        assert run.lost is None
        with Client(mosquitto.endpoint) as sender:
            publish(sender, reach.prefix, t.AggregatorTopic(), codec.encode(BIRTH))
        assert run.wait_for(lambda: isinstance(run.born, m.AggregatorPresence), DEADLINE)


def test_without_a_broker_it_says_so_at_once(mosquitto: Mosquitto) -> None:
    mosquitto.kill()
    with (
        pytest.raises(BrokerUnreachable, match="no connection to"),
        RemoteRun(BrokerAccess(mosquitto.address), [("fl/status", 1)]),
    ):
        pass


def refuse_subscriptions(listener: socket.socket) -> None:
    """A server that lets one client in and refuses both of its filters: Mosquitto's access lists grant every filter."""
    client, _ = listener.accept()
    with client:
        client.recv(4096)
        client.sendall(b"\x20\x03\x00\x00\x00")
        identifier = client.recv(4096)[2:4]
        client.sendall(b"\x90\x05" + identifier + b"\x00" + 2 * bytes([NOT_AUTHORISED]))
        client.recv(4096)


def test_a_refused_subscription_is_the_users_to_put_right() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        server = pool.submit(refuse_subscriptions, listener)
        reach = BrokerAccess(BrokerAddress("127.0.0.1", listener.getsockname()[1]))
        with (
            Observer(reach) as run,
            pytest.raises(UserError, match="to read fl/aggregator, fl/status: check"),
        ):
            run.wait_for(lambda: False, DEADLINE)
        server.result(DEADLINE)
