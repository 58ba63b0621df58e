"""``fl/history`` and ``fl/round/<n>/edges`` on a real broker, with edges made by hand (protocol, 8.9 and 8.10)."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.connections import Connections
from fl_aggregator.messaging.inbox import AdmittedMessage, Inbox
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.builders import session_of
from tests.support.client import Client
from tests.support.simulated_edges import SimulatedEdges
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(480)]

MANIFEST = Manifest(arrays=(ArraySpec(name="w", shape=(5,)),))
SETTINGS = (
    "--holdout", "0", "--wait", "20", "--clients", "3", "--per-round", "3", "--quorum", "1", "--rounds", "2",
    "--grace", "0", "--deadline", "30",
)  # fmt: skip


def states(message: m.Edges) -> dict[str, str]:
    return {name: view.state for name, view in message.edges.items()}


def until_states(edges: SimulatedEdges, number: int, wanted: dict[str, str]) -> m.Edges:
    while True:
        message = edges.expect(m.Edges, 10.0, round=number)
        if states(message) == wanted:
            return message


def retained(broker: Mosquitto) -> dict[str, Any]:
    with Client(broker.endpoint, "fl/history", "fl/round/+/edges") as client:
        client.catch_up()
        return {topic: json.loads(payload) for topic, payload in client.retained.items() if payload}


def test_a_run_its_resume_and_what_is_left_of_it(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    """With leftovers of another run, and somebody who writes there in its midst: both are put right."""
    for topic in ("fl/history", "fl/round/2/edges", "fl/round/77/edges"):
        subprocess.run(
            ["mosquitto_pub", "-p", str(mosquitto.port), "-r", "-t", topic, "-m", "ghost"], check=True
        )
    edges = stack.enter_context(SimulatedEdges(mosquitto.endpoint, MANIFEST))
    edges.subscribe("fl/history")
    run = stack.enter_context(programs.aggregator(tmp_path, mosquitto.url, *SETTINGS))
    edges.expect(m.AggregatorPresence, state="online")
    edges.expect(m.History, task="digits", rounds=2, columns=m.HistoryColumns())
    edges.register("a")
    waiting = edges.expect(m.Edges, round=0)
    assert waiting.phase == "selecting"
    edges.join(dict.fromkeys("abc", 10))
    zero = edges.expect(m.Selected, round=0)
    assert zero.cohort is not None
    (first,) = zero.cohort
    until_states(edges, 0, {name: "selected" if name == first else "present" for name in "abc"})
    edges.contribute(first, zero)

    one = edges.expect(m.Selected, round=1)
    until_states(edges, 1, dict.fromkeys("abc", "training"))
    ended = until_states(edges, 0, {name: "in" if name == first else "present" for name in "abc"})
    assert ended.edges[first].examples == 10
    edges.contribute("a", one)
    for topic in ("fl/history", "fl/round/1/edges", "fl/round/5/edges"):
        edges.send(topic, b"forged", retain=True)
    found = until_states(edges, 1, {"a": "in", "b": "training", "c": "training"})
    size = found.edges["a"].bytes
    assert size is not None
    assert size > MANIFEST.values * 4
    assert found.edges["a"] == m.EdgeView(state="in", examples=10, seconds=0.5, bytes=size, primary=0.5)
    edges.contribute("b", one)
    edges.send(
        t.PresenceTopic("c"),
        m.ClientPresence(client="c", state="offline", session=session_of("c")),
        retain=True,
    )
    two = edges.expect(m.Selected, round=2)
    over = until_states(edges, 1, {"a": "in", "b": "in", "c": "missing"})
    assert (over.edges["c"].reason or "").startswith("offline: for ")
    # That may have been said while round 1 was being aggregated: until it is closed, round 0's is still there.
    ours = {"fl/history", "fl/round/1/edges", "fl/round/2/edges"}
    wait_until(lambda: set(retained(mosquitto)) <= ours, 10, "nothing older, nothing foreign")
    lies = retained(mosquitto)
    assert "fl/round/1/edges" in lies
    columns = lies["fl/history"]["columns"]
    assert (columns["round"], columns["version"], columns["participants"]) == ([1], [1], [2])
    assert columns["cohort"] == [3]
    assert columns["bytes_up"][0] > 0
    started = lies["fl/history"]["started"]

    edges.contribute("a", two)
    until_states(edges, 2, {"a": "in", "b": "training", "c": "offline"})
    run.send(signal.SIGINT)
    assert run.wait(20) == 130
    lies = retained(mosquitto)
    assert lies["fl/round/2/edges"]["phase"] == "interrupted"
    assert lies["fl/round/2/edges"]["edges"]["a"]["state"] == "in"

    edges.take_all()
    again = stack.enter_context(programs.resumed(tmp_path))
    edges.expect(m.AggregatorPresence, state="online", incarnation=2)
    history = edges.expect(m.History, incarnation=2)
    assert history.started == started
    assert history.columns.round == (1,)
    assert list(history.columns.bytes_up) == columns["bytes_up"]
    result = edges.expect(m.Result, round=1, incarnation=2)
    assert (result.bytes_up, result.bytes_down) == (columns["bytes_up"][0], columns["bytes_down"][0])
    edges.join(dict.fromkeys("ab", 10))
    found = until_states(edges, 2, {"a": "in", "b": "training", "c": "offline"})
    assert found.edges["b"] == m.EdgeView(state="training", examples=10, seconds=0.5, bytes=size, primary=0.5)
    edges.contribute("b", two)
    again.ends_well()

    lies = retained(mosquitto)
    assert set(lies) == {"fl/history", "fl/round/2/edges"}
    assert lies["fl/round/2/edges"]["phase"] == "finished"
    assert {n: e["state"] for n, e in lies["fl/round/2/edges"]["edges"].items()} == {
        "a": "in", "b": "in", "c": "offline",
    }  # fmt: skip
    assert lies["fl/history"]["columns"]["round"] == [1, 2]


def test_after_a_broker_that_forgot_everything_it_is_said_again(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    edges = stack.enter_context(SimulatedEdges(mosquitto.endpoint, MANIFEST))
    run = stack.enter_context(programs.aggregator(tmp_path, mosquitto.url, *SETTINGS))
    edges.expect(m.AggregatorPresence, state="online")
    edges.join(dict.fromkeys("abc", 10))
    edges.expect(m.Selected, round=0)
    mosquitto.restart()

    def is_there() -> bool:
        lies = retained(mosquitto)
        return "fl/history" in lies and set(lies.get("fl/round/0/edges", {}).get("edges", ())) == set("abc")

    wait_until(is_there, 20, "history and edges")
    assert run.running()


def test_what_only_watchers_read_never_counts_as_a_rounds(mosquitto: Mosquitto, network: Network) -> None:
    """Neither when it is said, nor when it is said again."""
    links = Connections(
        network,
        BrokerAccess(mosquitto.address),
        Settings(),
        EnvelopeSource("R", 1),
        Inbox(lambda received: AdmittedMessage(None, received)),
    )
    links.connect(10)
    links.begin_session()
    before = links.bytes_down
    links.begin_session()
    again = links.bytes_down - before
    edges = m.Edges(run="R", incarnation=1, seq=1, round=1, phase="collecting", edges={})
    links.retain(t.EdgesTopic(1), edges, counted=False)
    links.repair_if_foreign("fl/round/1/edges", b"junk", retained=True)
    assert links.bytes_down == before + again
    links.begin_session()
    assert links.bytes_down == before + 2 * again
    links.close()
