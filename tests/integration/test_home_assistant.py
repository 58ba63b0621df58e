"""``start --home-assistant`` against a real broker: one retained message, whose buttons work; `clear` takes it away."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

PREFIX, DISCOVERY = "plant7/fl", "ha"
RUN = ("--prefix", PREFIX, "--task", "synthetic-50", "--clients", "1", "--per-round", "1", "--holdout", "0",
       "--rounds", "100000", "--home-assistant", DISCOVERY)  # fmt: skip


def retained(broker: Mosquitto) -> dict[str, bytes]:
    with Client(broker.endpoint, f"{DISCOVERY}/#") as later:
        later.catch_up()
        return later.retained


def clear(broker: Mosquitto) -> str:
    words = ("clear", "--yes", "--broker", broker.url, "--prefix", PREFIX, "--home-assistant", DISCOVERY)
    done = programs.run("fl-aggregator", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_is_a_device_until_it_is_cleared(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    def device() -> dict[str, Any] | None:
        found = retained(shared_mosquitto)
        return json.loads(next(iter(found.values()))) if found else None

    def with_metric() -> dict[str, Any] | None:
        found = device()
        return found if found and {"primary", "edge_0"} <= found["cmps"].keys() else None

    edge = ("--prefix", PREFIX, "--task", "synthetic-50")
    with (
        Client(shared_mosquitto.endpoint, f"{PREFIX}/status", prefix=PREFIX) as watcher,
        programs.edges(tmp_path / "edges", shared_mosquitto.url, "0", *edge),
        programs.aggregator(tmp_path, shared_mosquitto.url, *RUN) as run,
    ):
        found = wait_until(with_metric, 60, "the device with its metric and its edge")
        (topic,) = retained(shared_mosquitto)
        assert topic.startswith(f"{DISCOVERY}/device/fl-mqtt_plant7_fl_")
        assert topic.endswith("/config")
        assert (found["stat_t"], found["avty_t"]) == (f"{PREFIX}/status", f"{PREFIX}/aggregator")
        for button, held in (("pause", True), ("resume", False)):
            component, pressed = found["cmps"][button], time.monotonic()
            watcher.publish(component["cmd_t"], component["pl_prs"].encode())
            watcher.wait_for_message(m.Status, held=held, after=pressed)
        component = found["cmps"]["stop"]
        watcher.publish(component["cmd_t"], component["pl_prs"].encode())
        assert run.wait(30) == 130, run.output
    assert list(retained(shared_mosquitto)) == [topic], "a run that is stopped stays a device"
    assert f"1 for Home Assistant: {topic}" in clear(shared_mosquitto)
    assert not retained(shared_mosquitto)


def test_what_another_program_has_announced_there_stays(shared_mosquitto: Mosquitto) -> None:
    topic = f"{DISCOVERY}/device/fl-mqtt_stays/config"
    with Client(shared_mosquitto.endpoint) as other:
        other.publish(topic, b'{"o":{"name":"other"},"dev":{"ids":["x"]},"cmps":{}}', retain=True)
        where = ("--broker", shared_mosquitto.url, "--prefix", "stays", "--home-assistant", DISCOVERY)
        words = ("clear", "--yes", *where)
        done = programs.run("fl-aggregator", *words)
        assert (done.returncode, "nothing is retained" in done.stdout) == (0, True), done.stdout + done.stderr
        assert topic in retained(shared_mosquitto)
        other.publish(topic, b"", retain=True)
