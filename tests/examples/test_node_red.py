"""``examples/node-red`` in a real Node-RED: the status reaches the gauge, and pictures get their answers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import npm, programs
from tests.support.broker import Mosquitto
from tests.support.ports import free_port
from tests.support.wait import wait_until

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "node-red"
FLOWS = json.loads((EXAMPLE / "flows.json").read_text(encoding="utf-8"))
RUN = (
    "--task",
    "digits-mlp",
    "--clients",
    "2",
    "--per-round",
    "2",
    "--rounds",
    "3",
    "--epochs",
    "2",
    "--seed",
    "7",
)


@pytest.fixture
def node_red(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[str]:
    """The address of a Node-RED with the flow, which has the broker's port in it and is otherwise as it is."""
    program = npm.installed(EXAMPLE) / "node_modules" / "node-red" / "red.js"
    user = tmp_path / "node-red"
    user.mkdir()
    flows = [
        {**node, "port": str(mosquitto.port)} if node["type"] == "mqtt-broker" else node for node in FLOWS
    ]
    (user / "flows.json").write_text(json.dumps(flows))
    (user / "settings.js").write_bytes((EXAMPLE / "settings.js").read_bytes())
    port = free_port()
    with (user / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            ["node", program, "--userDir", user, "--settings", user / "settings.js", "flows.json"],
            env={**os.environ, "PORT": str(port), "NODE_RED_HOME": str(program.parent)},
            cwd=user, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: connected(user / "log.txt", process), 60, "Node-RED has its broker")
        yield address
    finally:
        process.kill()
        process.wait()


def connected(log: Path, process: subprocess.Popen[bytes]) -> bool:
    text = log.read_text(errors="replace")
    assert process.poll() is None, text
    return "Connected to broker" in text


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return json.loads(answer.read())


def ask(address: str, request: bytes) -> tuple[int, Any]:
    """The status and the answer of a request, which is asked again while no edge has answered it."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{address}/fl/predict", data=request), timeout=60
        ) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            return error.code, json.loads(error.read())


@pytest.mark.broker
@pytest.mark.long
def test_the_gauge_shows_the_run_and_pictures_get_their_answers(
    tmp_path: Path, mosquitto: Mosquitto, node_red: str, light_edges: None
) -> None:
    assert get(f"{node_red}/fl/status") == {"status": None, "gauge": None}
    with programs.edges(tmp_path / "edges", mosquitto.url, "0-1", "--evaluator", "judge"):
        with programs.aggregator(tmp_path, mosquitto.url, *RUN) as run:
            run.ends_well(120)
        ended = wait_until(
            lambda: (got := get(f"{node_red}/fl/status"))["status"]["phase"] == "finished" and got,
            20,
            "the end",
        )
        status, gauge = ended["status"], ended["gauge"]
        assert (status["version"], status["task"]) == (3, "digits-mlp")
        accuracy = programs.history(tmp_path)[-1]["metrics"]["accuracy"]
        assert gauge == {"name": "accuracy", "value": pytest.approx(accuracy), "min": 0.0, "max": 1.0}

        requests = [(ROOT / "examples" / name).read_bytes() for name in ("seven.png", "seven.json")]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            answers = list(pool.map(lambda request: ask(node_red, request), requests * 3))
        for request, (code, answer) in zip(requests * 3, answers, strict=True):
            assert code == 200, answer
            assert answer["sha256"] == hashlib.sha256(request).hexdigest()
            assert answer["label"] in {str(digit) for digit in range(10)}
            assert answer["version"] == 3
        code, answer = ask(node_red, b"no picture")
        assert code == 422
        assert answer["error"]
    with urllib.request.urlopen(f"{node_red}/fl", timeout=60) as page:
        assert "<meter" in page.read().decode()


def test_the_flow_needs_no_other_nodes_and_its_wires_lead_somewhere() -> None:
    ids = {node["id"] for node in FLOWS}
    assert len(ids) == len(FLOWS)
    assert {wire for node in FLOWS for output in node.get("wires", ()) for wire in output} <= ids
    of_node_red = {"tab", "mqtt-broker", "mqtt in", "mqtt out", "http in", "http response"}
    assert {node["type"] for node in FLOWS} == of_node_red | {"function", "template", "debug"}
    locked = json.loads((EXAMPLE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    wanted = json.loads((EXAMPLE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert all("resolved" not in package for package in locked.values()), "registries are a user's own choice"
