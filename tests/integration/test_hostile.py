"""What anyone who may publish can do to a run: nothing that a word in the log does not cover."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_shared.protocol import codec
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.samples import MESSAGES
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges")]


def test_a_run_goes_on_among_junk(tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack) -> None:
    stranger = stack.enter_context(Client(mosquitto.endpoint))
    # Retained from an earlier life: a registration of another device, an update, and things on our own topics.
    ghost = json.loads(codec.encode(MESSAGES["register-first"][1])) | {"client": "1", "device": "ghost"}
    stranger.publish("fl/register/1", json.dumps(ghost).encode(), retain=True)
    stranger.publish("fl/updates/1", codec.encode(MESSAGES["update"][1]), retain=True)
    stranger.publish("fl/evaluations/1", b"{}", retain=True, content_type="\ufeff")
    stranger.publish(
        "fl/round/77/selected", codec.encode(MESSAGES["selected"][1]), retain=True, content_type="\ufeff"
    )
    task = ("--task", "digits-mlp", "--epochs", "1", "--deadline", "240")
    settings = (*task, "--clients", "3", "--per-round", "2", "--rounds", "4", "--wait", "60")
    with (
        Client(mosquitto.endpoint, "fl/clients/+/presence") as presences,
        programs.edges(tmp_path / "edges", mosquitto.url, "0-2") as fleet,
        programs.aggregator(tmp_path, mosquitto.url, *settings) as run,
    ):
        held = wait_until(lambda: programs.workers(fleet), 60, "the edges have a process that trains")
        wait_until(lambda: "will create the initial weights" in run.err, 60, "the first selection")
        programs.freeze(*held)  # so that a round is open as long as junk comes
        sessions = {}
        for one in presences.received:
            presence = json.loads(one.payload)
            if presence["state"] == "online":
                sessions[one.topic.split("/")[2]] = presence["session"]
        deep = b"\x81\xa4kind" + b"\x91" * 1020 + b"\xc0"
        borrowed = ghost | {"client": "2", "session": sessions["2"]}
        for _ in range(20):
            stranger.publish("fl/updates/x", deep)
            stranger.publish("fl/updates/0", deep)
            stranger.publish("fl/updates", b"\xdf\xff\xff\xff\xff")
            stranger.publish("fl/register/0", b'{"v":1,"kind":"register"}')
            stranger.publish("fl/register/0", json.dumps({"v": 1, "session": sessions["0"]}).encode())
            stranger.publish("fl/register/2", json.dumps(borrowed).encode())
            stranger.publish("fl/register/" + "é" * 30, b"[" * 5000)
            stranger.publish(
                "fl/evaluations/0", codec.encode(MESSAGES["evaluation"][1]), content_type="\ufeff"
            )
            stranger.publish("fl/status", b"{}", retain=True)
            stranger.publish("fl/model", b"junk", retain=True)
            stranger.publish("fl/aggregator", b'{"x":1}', retain=True)
            stranger.publish("fl/model/0123456789ab/0", deep)
            time.sleep(0.02)
        programs.thaw(*held)
        run.ends_well()
        assert fleet.running()
        assert "error" not in fleet.err
        assert "Traceback" not in fleet.err + run.err
    lines = programs.history(tmp_path)
    assert [line["version"] for line in lines] == [1, 2, 3, 4]
    assert all(line["missing"] == {} for line in lines)
    with Client(mosquitto.endpoint, "fl/#") as later:
        later.catch_up()
    retained = later.retained
    assert json.loads(retained["fl/model"])["version"] == 4
    assert json.loads(retained["fl/status"])["phase"] == "finished"
    assert "fl/register/1" not in retained
    assert "fl/updates/1" not in retained


def test_time_passes_whatever_arrives(tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack) -> None:
    """A wait ends although something comes more often than the loop would tick by itself."""
    stranger = stack.enter_context(Client(mosquitto.endpoint))
    with programs.aggregator(tmp_path, mosquitto.url, "--wait", "2") as run:
        deadline = time.monotonic() + 60
        while run.running() and time.monotonic() < deadline:
            stranger.publish("fl/register/zz", b"junk")
            time.sleep(0.05)
        assert not run.running()
        assert run.wait() == 1
