"""Whatever an aggregator (or whoever writes to its topics) sends to an edge, the edge goes on and does its work.

A real ``fl-edge``; the test is the aggregator, over the wire. Nothing is answered to what makes no sense: it is
said in the log, the first time and at powers of ten.
"""

from __future__ import annotations

import json
import re
import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.transfer.publication import model_publication
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.edge_under_test import CHUNK, TASK, EdgeUnderTest
from tests.support.invalid_models import DEEP, bad_models
from tests.support.samples import MESSAGES
from tests.support.simulated_aggregator import RUN, SimulatedAggregator, first_model
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(480)]

DEEP_JSON = b'{"v":2,"kind":' + b"[" * 5000
FLOOD = 300
"""Of each kind of message."""


def test_an_edge_goes_on_whatever_its_aggregator_says(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    wire = stack.enter_context(SimulatedAggregator(mosquitto.endpoint, "fl", task=TASK))
    leave_behind(wire)
    arguments = ("--task", TASK, "--chunk", str(CHUNK))
    with programs.edges(tmp_path, mosquitto.url, "7", *arguments) as edge:
        tested = EdgeUnderTest(wire, edge)
        admission(tested)
        wire.select(0, ("7",), None)
        tested.first = wire.expect(m.Update, 20, round=0)
        wire.answer(tested.first)
        good = model_publication(first_model(tested.first), CHUNK)
        wire.publish_model(good, 0)
        tested.train_normally(good.digest)

        nonsense_selections(tested, good.digest)
        tested.train_normally(good.digest)
        bad_models(tested)
        tested.train_normally(good.digest)
        bad_replies(tested, good.digest)
        tested.train_normally(good.digest)
        before = tested.rss()
        flood(tested)
        tested.train_normally(good.digest)
        assert tested.rss() - before < 60 * 2**20
        assert edge.running()
        assert "20971520 bytes" not in edge.err, "what no edge takes does not reach it"
        assert edge.err.count("connected to") == 1, "and ends no connection"
        edge.send(signal.SIGTERM)
        assert edge.wait(10) == 130
    assert "Traceback" not in edge.err
    dropped = [line for line in edge.err.splitlines() if "dropped a message (" in line]
    times = {int(re.findall(r"dropped a message \((\d+) so far", line)[0]) for line in dropped}
    assert times == {1, 10, 100}
    assert len(edge.err.splitlines()) < 200, "a flood of bad messages is not one of log lines"


def leave_behind(wire: SimulatedAggregator) -> None:
    """Retained on every topic that an edge listens to."""
    for topic, payload in (
        ("fl/aggregator", b"junk"),
        ("fl/model", DEEP_JSON),
        ("fl/clients/7/work", codec.encode(MESSAGES["selected-first-weights"][1])),
        ("fl/clients/7/presence", b'{"v":2,"kind":"presence","client":"8","state":"offline","session":"x"}'),
        ("fl/round/99/selected", codec.encode(MESSAGES["selected"][1])),
        ("fl/round/3/result", DEEP),
        ("fl/replies/7", codec.encode(MESSAGES["refused"][1])),
    ):
        assert wire.publish(topic, payload, retain=True) < 0x80


def admission(tested: EdgeUnderTest) -> None:
    """What would end the edge, or admit it elsewhere, but is meant for another session, or is not to be read."""
    wire = tested.wire
    first = wire.expect(m.Registration, 30, client="7", run=None)
    tested.session = first.session
    to_another: dict[str, Any] = {"client": "7", "session": "another"}
    refused = m.Refused(**wire.envelope(), **to_another, reason="id-in-use", detail="in use")
    wire.send(t.RepliesTopic("7"), refused)
    own = json.loads(codec.encode(refused)) | {"session": first.session}
    for changes in (
        {"v": 1, "session": "another"},
        {"reason": "because"},
        {"client": "8"},
        {"run": "a/b"},
        {"detail": "x" * 1001},
    ):
        tested.say(t.RepliesTopic("7"), json.dumps(own | changes).encode())
    admitted = {
        "kind": "admitted",
        "task": TASK,
        "partition": {"index": 0, "count": 1, "scheme": "iid", "seed": 0, "holdout": 0.2, "examples": None},
    }
    part = cast(dict[str, Any], admitted["partition"])
    for wrong in ({"count": 10**9}, {"index": -1}, {"holdout": 1.0}, {"seed": 2**63}, {"scheme": "x" * 65}):
        tested.say(t.RepliesTopic("7"), json.dumps(own | admitted | {"partition": part | wrong}).encode())
    wire.admit(first)
    second = wire.expect(m.Registration, 30, client="7", run=RUN)
    wire.admit(second)
    wait_until(lambda: "registered for run" in tested.edge.err, 10, "its registration")


def nonsense_selections(tested: EdgeUnderTest, base: str) -> None:
    """None of these is obeyed, and each is said with the field that is wrong."""
    wire, number = tested.wire, tested.round + 1
    wire.select(number + 50, ("8",), m.ModelReference(version=1, digest=base))  # to have its bytes
    model = m.Selected(
        **wire.envelope(),
        round=number,
        task=TASK,
        cohort=("7",),
        seconds_left=60.0,
        training=m.TrainingRequest(epochs=1, batch_size=32, lr=0.1, momentum=0.9, seed=0),
        fold=m.FoldSettings(max_examples=1000, max_delta=100.0, scale_bits=30),
        encoding="f32",
        base=m.ModelReference(version=1, digest=base),
        inline_limit=10**6,
    )
    good = json.loads(codec.encode(model))

    def training(**changes: Any) -> dict[str, Any]:
        return {"training": good["training"] | changes}

    for field, changes in (
        ("training.epochs", training(epochs=10**9)),
        ("training.epochs", training(epochs=0)),
        ("training.batch_size", training(batch_size=2**63)),
        ("training.lr", training(lr=float("nan"))),
        ("training.lr", training(lr=float("inf"))),
        ("training.lr", training(lr=-0.1)),
        ("training.lr", training(lr="0.1")),
        ("training.momentum", training(momentum=1.5)),
        ("training.seed", training(seed=-1)),
        ("fold.scale_bits", {"fold": good["fold"] | {"scale_bits": 10**6}}),
        ("seconds_left", {"seconds_left": -1.0}),
        ("seconds_left", {"seconds_left": 1e300}),
        ("cohort", {"cohort": ["7", *(f"c{n}" for n in range(256))]}),
        ("cohort.1", {"cohort": ["7", "#"]}),
        ("bytes of JSON", {"cohort": ["7", *(f"c{n}" for n in range(20_000))]}),
        ("round", {"round": number + 1}),
        ("round", {"round": 2**63}),
        ("base.digest", {"base": {"version": 1, "digest": "../" * 20}}),
        ("inline_limit", {"inline_limit": 2**60}),
        ("task", {"task": "../etc"}),
        ("v", {"v": 3}),
        ("incarnation", {"incarnation": 0}),
    ):
        tested.say(t.SelectedTopic(number), json.dumps(good | cast(dict[str, Any], changes)).encode())
        begin = f"SelectedTopic: {field}" if field != "bytes of JSON" else field
        wait_until(partial(tested.logged, begin), 30, f"a word on {field}")
    for changes in ({"run": "another"}, {"cohort": ["8"]}, {"cohort": None}):
        tested.say(t.SelectedTopic(number), json.dumps(good | changes).encode())
    wire.expect_silence(m.Update, 0.5)
    # A later start of its own run: it registers again, and obeys whoever answers, which is still this one.
    tested.say(t.SelectedTopic(number), json.dumps(good | {"incarnation": 9}).encode())
    wire.admit(wire.expect(m.Registration, 10, client="7", run=None))
    wire.expect_silence(m.Update, 0.2)
    tested.round = number + 50


def bad_replies(tested: EdgeUnderTest, base: str) -> None:
    """Grants of what there is not, and answers to others."""
    wire = tested.wire
    number = tested.select(base, inline_limit=0)
    offer = wire.expect(m.Offer, 15, round=number)
    assert offer.chunks == 4
    to: dict[str, Any] = {"client": "7", "session": offer.session, "round": number, "digest": offer.digest}
    for changes in (
        {"chunks": (4, 5, 10**9)},
        {"chunks": (0,), "digest": "ab" * 32},
        {"chunks": (0,), "round": number + 1},
        {"chunks": (0,), "session": "another"},
        {"chunks": (0,), "client": "8"},
        {"chunks": (0,), "incarnation": 2},
        {"chunks": (0,), "run": "another"},
    ):
        wire.send(t.RepliesTopic("7"), m.Grant(**wire.envelope() | to | cast(dict[str, Any], changes)))
    raw = json.loads(codec.encode(m.Grant(**wire.envelope(), **to, chunks=(0,))))
    for chunks in ([], [-1], list(range(2000)), [2**63], ["0"], [[0]]):
        tested.say(t.RepliesTopic("7"), json.dumps(raw | {"chunks": chunks}).encode())
    for wrong in ({"session": "another"}, {"digest": "cd" * 32}, {"round": number - 1}, {"run": "another"}):
        wire.send(t.RepliesTopic("7"), m.Accepted(**wire.envelope() | to | wrong))
        wire.send(
            t.RepliesTopic("7"), m.Rejected(**wire.envelope() | to | wrong, reason="late", detail="late")
        )
    wire.expect_silence(m.UpdateChunk, 0.5)
    wire.grant(offer, (2, 2, 2, 77))
    assert wire.expect(m.UpdateChunk, 10, round=number).index == 2
    wire.expect_silence(m.UpdateChunk, 0.3)
    wire.answer(offer)
    wait_until(lambda: f"round {number}: accepted" in tested.edge.err, 10, "its acceptance")


def flood(tested: EdgeUnderTest) -> None:
    """Much junk at once, small and large, on every topic that it listens to."""
    topics: tuple[t.Topic, ...] = (
        t.RepliesTopic("7"), t.AggregatorTopic(), t.ModelTopic(), t.WorkTopic("7"), t.SelectedTopic(500),
        t.ResultTopic(500), t.PresenceTopic("7"),
    )  # fmt: skip
    for number in range(FLOOD):
        for topic in topics:
            tested.say(topic, (b"junk %d" % number, DEEP_JSON, b"{}", DEEP)[number % 4])
        if number % 20 == 0:
            tested.say(t.ModelTopic(), b" " * (10 * 2**20))
    tested.say(t.ModelTopic(), b" " * (20 * 2**20))  # more than an edge takes: the broker keeps it


def test_an_edge_waits_while_the_aggregator_has_another_version_of_the_protocol(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    wire = stack.enter_context(SimulatedAggregator(mosquitto.endpoint, "fl", task=TASK))
    other: dict[str, Any] = {"v": 3, "run": "other", "incarnation": 1, "new": {}}
    birth = other | {"kind": "aggregator", "state": "online", "session": "theirs"}
    with programs.edges(tmp_path, mosquitto.url, "7", "--task", TASK) as edge:
        for _ in range(2):  # it registers once more for who comes later
            session = wire.expect(m.Registration, 30, client="7").session
            answer = json.dumps(other | {"kind": "admitted", "session": session}).encode()
            wire.send(t.RepliesTopic("7"), answer)
            wire.send(t.RepliesTopic("7"), answer)
            wait_until(lambda: "waiting for another run" in edge.err, 10, "its word")
            wire.expect_silence(m.Registration, 0.2)
            other["run"] = birth["run"] = "later"
            wire.send(t.AggregatorTopic(), json.dumps(birth).encode())
        wire.send(
            t.AggregatorTopic(), m.AggregatorPresence(state="online", session="a", run=RUN, incarnation=1)
        )
        wire.admit(wire.expect(m.Registration, 30, client="7"))
        wire.admit(wire.expect(m.Registration, 30, client="7", run=RUN))
        wait_until(lambda: "registered for run" in edge.err, 10, "its registration")
    assert [line.split("error: ")[-1] for line in edge.err.splitlines() if "take part" in line] == [
        f"does not take part in run {run}: wrong-version: the aggregator's answer has protocol version 3, expected "
        f"{m.PROTOCOL_VERSION}: install its version of fl-mqtt; waiting for another run"
        for run in ("other", "later")
    ]
