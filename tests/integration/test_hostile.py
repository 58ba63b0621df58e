"""What anyone who may publish can do to a run: nothing that a word in the log does not cover."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fl_shared import codec
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.listener import Listener
from tests.support.samples import MESSAGES

pytestmark = [pytest.mark.broker, pytest.mark.edge]


class Stranger:
    """A client of nobody's that publishes what it likes."""

    def __init__(self, broker: Mosquitto) -> None:
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()

    def say(
        self, topic: str, payload: bytes, *, retain: bool = False, content_type: str | None = None
    ) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if content_type is not None:
            properties.ContentType = content_type
        self._client.publish(topic, payload, 1, retain, properties).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_a_run_goes_on_among_junk(tmp_path: Path, mosquitto: Mosquitto) -> None:
    stranger = Stranger(mosquitto)
    # Retained from an earlier life: a registration of another device, an update, and things on our own topics.
    ghost = json.loads(codec.encode(MESSAGES["register-first"][1])) | {"client": "1", "device": "ghost"}
    stranger.say("fl/register/1", json.dumps(ghost).encode(), retain=True)
    stranger.say("fl/updates/1", codec.encode(MESSAGES["update"][1]), retain=True)
    stranger.say("fl/evaluations/1", b"{}", retain=True, content_type="\ufeff")
    stranger.say(
        "fl/round/77/selected", codec.encode(MESSAGES["selected"][1]), retain=True, content_type="\ufeff"
    )
    settings = ("--clients", "3", "--per-round", "2", "--rounds", "4", "--epochs", "60", "--wait", "60")
    with (
        Listener(mosquitto, "fl/clients/+/presence") as presences,
        programs.edges(tmp_path / "edges", mosquitto.url, "0-2") as fleet,
        programs.aggregator(tmp_path, mosquitto.url, *settings) as run,
    ):
        programs.until(lambda: "is to make the first weights" in run.err, 60, "the first selection")
        sessions = {}
        for topic, payload, _ in presences.all():
            presence = json.loads(payload)
            if presence["state"] == "online":
                sessions[topic.split("/")[2]] = presence["session"]
        deep = b"\x81\xa4kind" + b"\x91" * 1020 + b"\xc0"
        borrowed = ghost | {"client": "2", "session": sessions["2"]}
        for _ in range(20):
            stranger.say("fl/updates/x", deep)
            stranger.say("fl/updates/0", deep)
            stranger.say("fl/updates", b"\xdf\xff\xff\xff\xff")
            stranger.say("fl/register/0", b'{"v":2,"kind":"register"}')
            stranger.say("fl/register/0", json.dumps({"v": 2, "session": sessions["0"]}).encode())
            stranger.say("fl/register/2", json.dumps(borrowed).encode())
            stranger.say("fl/register/" + "é" * 30, b"[" * 5000)
            stranger.say("fl/evaluations/0", codec.encode(MESSAGES["evaluation"][1]), content_type="\ufeff")
            stranger.say("fl/status", b"{}", retain=True)
            stranger.say("fl/model", b"junk", retain=True)
            stranger.say("fl/aggregator", b'{"x":1}', retain=True)
            stranger.say("fl/model/0123456789ab/0", deep)
            time.sleep(0.02)
        run.ends_well()
        assert fleet.running()
        assert "error" not in fleet.err
        assert "Traceback" not in fleet.err + run.err
    lines = programs.history(tmp_path)
    assert [line["version"] for line in lines] == [1, 2, 3, 4]
    assert all(line["missing"] == {} for line in lines)
    with Listener(mosquitto, "fl/#") as later:
        time.sleep(0.5)
    retained = {topic: payload for topic, payload, kept in later.all() if kept}
    assert json.loads(retained["fl/model"])["version"] == 4
    assert json.loads(retained["fl/status"])["phase"] == "finished"
    assert "fl/register/1" not in retained
    assert "fl/updates/1" not in retained
    stranger.close()


def test_time_passes_whatever_arrives(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """A wait ends although something comes more often than the loop would tick by itself."""
    stranger = Stranger(mosquitto)
    with programs.aggregator(tmp_path, mosquitto.url, "--wait", "2") as run:
        deadline = time.monotonic() + 20
        while run.running() and time.monotonic() < deadline:
            stranger.say("fl/register/zz", b"junk")
            time.sleep(0.05)
        assert not run.running()
        assert run.wait() == 1
    stranger.close()
