"""The broker that a program starts for itself, its configuration and its end with its parent."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import fl_shared.system.mosquitto as own
from fl_shared.errors import RunFailed, UserError
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import ConnectionSettings
from fl_shared.mqtt.network import Network
from fl_shared.system.child_process import ChildProcess
from fl_shared.system.mosquitto import (
    Listener,
    MosquittoChild,
    accepts_connect,
    configuration,
    find_mosquitto,
    free_port,
)
from tests.support.broker import Mosquitto
from tests.support.wait import DEADLINE, wait_until

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
    assert not accepts_connect("127.0.0.1", broker.port)


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
        assert accepts_connect("127.0.0.1", broker.port)


def test_a_broker_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "configuration", lambda *_: "listener 1\nno_such_setting true\n")
    with pytest.raises(RunFailed, match="no_such_setting"):
        MosquittoChild(tmp_path)
    program = tmp_path / "sleeper"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("FL_MOSQUITTO", str(program))
    with pytest.raises(RunFailed, match="its log is empty"):
        MosquittoChild(tmp_path, timeout=0.3)


def test_no_mosquitto_is_a_message_with_every_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_mosquitto()
    monkeypatch.setenv("FL_MOSQUITTO", found)
    assert find_mosquitto() == found
    monkeypatch.setenv("FL_MOSQUITTO", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"FL_MOSQUITTO is .*nothing"):
        MosquittoChild(tmp_path)
    monkeypatch.delenv("FL_MOSQUITTO")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as caught:
        find_mosquitto(places=())
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
    with ChildProcess([find_mosquitto(), "-c", str(tmp_path / "both.conf")], tmp_path / "log") as process:
        wait_until(
            lambda: process.poll() is not None or accepts_connect("127.0.0.1", port),
            DEADLINE,
            "the broker answers",
        )
        assert process.poll() is None, process.log_tail()
        assert accepts_connect("::1", other)
    assert (memory / "mosquitto.db").exists()


# --- the files that are handed out --------------------------------------------------------------------------------


def test_the_health_check_of_compose_tells_a_living_broker_from_a_dead_one(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["broker"]
    kind, *written = service["healthcheck"]["test"]
    assert kind == "CMD"
    assert shutil.which("mosquitto_pub"), "install mosquitto-clients"
    answered = tmp_path / "healthy"  # for a minute after an answer, the broker is not asked again
    command = [word.replace("$$", "$").replace("/tmp/healthy", str(answered)) for word in written]

    def status() -> int:
        return subprocess.run(
            [*command, "-p", str(mosquitto.port)], capture_output=True, timeout=120, check=False
        ).returncode

    assert status() == 0
    mosquitto.stop()
    assert status() == 0
    answered.unlink()
    assert status() != 0
