"""The broker that a program starts for itself, its configuration and its leash."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import fl_shared.mosquitto as own
from fl_shared.broker_url import BrokerAddress
from fl_shared.errors import RunFailed, UserError
from fl_shared.leash import Leashed
from fl_shared.mosquitto import Listener, MosquittoChild, answers, configuration, find_mosquitto, free_port
from fl_shared.mqtt import ConnectionSettings, Network, Received
from tests.broker import Mosquitto
from tests.peer import Peer, eventually

pytestmark = pytest.mark.broker
ROOT = Path(__file__).parents[2]


# --- the broker -------------------------------------------------------------------------------------------------


def test_it_answers_once_it_is_there_and_is_gone_once_it_is_stopped(tmp_path: Path) -> None:
    with MosquittoChild(tmp_path / "new" / "folder") as broker, Network() as network:
        connection = network.connect(ConnectionSettings(BrokerAddress.parse(broker.url)), lambda _: None)
        assert connection.wait_connected(5.0).maximum_packet_size == own.MAX_PACKET_SIZE
        assert broker.poll() is None
        assert f"port {broker.port}" in broker.log_tail()
    assert broker.poll() == 0
    assert not answers("127.0.0.1", broker.port)


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    with MosquittoChild(tmp_path) as broker:
        assert (tmp_path / "mosquitto.conf").read_text() == configuration(
            [Listener(broker.port, "127.0.0.1")]
        )
        assert f"listener {broker.port} 127.0.0.1\n" in configuration([Listener(broker.port, "127.0.0.1")])


def test_a_port_that_somebody_took_meanwhile_is_left_to_him(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([mosquitto.port, mosquitto.port, free_port()])
    monkeypatch.setattr(own, "free_port", lambda: next(ports))
    with MosquittoChild(tmp_path) as broker:
        assert broker.port != mosquitto.port
        assert answers("127.0.0.1", broker.port)


def test_a_broker_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "configuration", lambda *_: "listener 1\nno_such_setting true\n")
    with pytest.raises(RunFailed, match="no_such_setting"):
        MosquittoChild(tmp_path)
    program = tmp_path / "sleeper"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("FL_MOSQUITTO", str(program))
    with pytest.raises(RunFailed, match="it says nothing"):
        MosquittoChild(tmp_path, timeout=0.3)


def test_no_mosquitto_is_a_message_with_every_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_mosquitto()
    monkeypatch.setenv("FL_MOSQUITTO", found)
    assert find_mosquitto() == found
    monkeypatch.setenv("FL_MOSQUITTO", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"FL_MOSQUITTO is .*nothing"):
        find_mosquitto()
    monkeypatch.delenv("FL_MOSQUITTO")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(own, "_PLACES", ())
    with pytest.raises(UserError) as caught:
        MosquittoChild(tmp_path)
    for way in (
        "apt-get install mosquitto",
        "dnf install",
        "brew install",
        "Windows",
        "FL_MOSQUITTO",
        "--broker",
    ):
        assert way in str(caught.value)


def test_persistence_and_more_listeners_are_taken(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir(mode=0o777)
    memory.chmod(0o777)
    port, other = free_port(), free_port()
    text = configuration([Listener(port, "127.0.0.1"), Listener(other, "::1")], persistence=memory)
    (tmp_path / "both.conf").write_text(text + ("user root\n" if os.geteuid() == 0 else ""))
    with Leashed([find_mosquitto(), "-c", str(tmp_path / "both.conf")], tmp_path / "log") as process:
        eventually(lambda: process.poll() is not None or answers("127.0.0.1", port))
        assert process.poll() is None, process.log_tail()
        assert answers("::1", other)
    assert (memory / "mosquitto.db").exists()


# --- the files that are handed out --------------------------------------------------------------------------------


def test_the_health_check_of_compose_tells_a_living_broker_from_a_dead_one(mosquitto: Mosquitto) -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["broker"]
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD"
    assert shutil.which(command[0]), "install mosquitto-clients"

    def status() -> int:
        return subprocess.run(
            [*command, "-p", str(mosquitto.port)], capture_output=True, timeout=5, check=False
        ).returncode

    assert status() == 0
    mosquitto.stop()
    assert status() != 0


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker with the ACL of the repository; every password is ``p``."""
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    for name in ("aggregator", "7", "8", "asker"):
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), name, "p"], check=True)
    broker = Mosquitto(
        tmp_path,
        extra=[f"password_file {passwords}", f"acl_file {ROOT / 'broker' / 'acl'}"],
        allow_anonymous=False,
    )
    yield broker
    broker.stop()


MAY_WRITE = {"7": "fl/updates/7", "8": "fl/updates/8", "asker": "fl/predict"}


def payloads_until(peer: Peer, last: bytes) -> list[bytes]:
    seen = [b""]
    while seen[-1] != last:
        seen.append(bytes(peer.next(Received).payload))
    return seen


def test_the_acl_lets_nobody_speak_or_hear_for_another(accounts: Mosquitto) -> None:
    with Network() as network:
        peers = {}
        for name in ("aggregator", "7", "8", "asker"):
            address = BrokerAddress("127.0.0.1", accounts.port, name)
            peers[name] = Peer(network, ConnectionSettings(address, password="p"))
            peers[name].connection.wait_connected(5.0)
            peers[name].subscribed("fl/#")
        peers["7"].subscribed("$share/predictors/fl/predict")

        def reaches(sender: str, topic: str) -> set[str]:
            heard: dict[str, list[bytes]] = {name: [] for name in peers}
            assert peers[sender].connection.publish(topic, b"secret")
            if sender != "aggregator":
                # It follows on the same connection on a topic that is allowed: so the first is through as well.
                assert peers[sender].connection.publish(MAY_WRITE[sender], b"mark")
                heard["aggregator"] += payloads_until(peers["aggregator"], b"mark")
            assert peers["aggregator"].connection.publish("fl/status", b"done")
            for name, one in peers.items():
                heard[name] += payloads_until(one, b"done")
            return {name for name, payloads in heard.items() if b"secret" in payloads}

        for topic in ("fl/register", "fl/updates", "fl/clients/%/presence", "fl/evaluations/%"):
            mine = topic.replace("%", "7") if "%" in topic else topic + "/7"
            assert reaches("7", mine) - {"7"} == {"aggregator"}, mine
            assert reaches("8", mine) == set(), f"8 spoke for 7 on {mine}"
        assert reaches("7", "fl/updates") == set(), "the bare topic names nobody"
        assert reaches("7", "fl/updates/7/8") == set()
        assert reaches("7", "fl/status") == set()
        assert reaches("7", "fl/control") == set()
        assert reaches("7", "fl/predictions/me") == {"aggregator", "asker"}
        assert reaches("asker", "fl/predict") == {"aggregator", "7", "8", "asker"}
        assert reaches("asker", "fl/updates/7") == set()
        assert reaches("aggregator", "fl/replies/7") == {"aggregator", "7"}
        assert reaches("aggregator", "fl/clients/8/work") == {"aggregator", "8"}
        for topic in (
            "fl/aggregator",
            "fl/model",
            "fl/model/abc/0",
            "fl/model/abc/manifest",
            "fl/round/3/selected",
        ):
            assert reaches("aggregator", topic) == {"aggregator", "7", "8", "asker"}, topic
