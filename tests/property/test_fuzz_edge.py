"""Whatever an aggregator, or who asks for predictions, sends to an edge: nothing escapes, and it can go on (1.5, 7.3).

``benchmarks/fuzz.py`` does the same a million times; here Hypothesis looks for the shortest noise that does harm.
"""

from __future__ import annotations

import errno
import random
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paho.mqtt.exception import MalformedPacket

from fl_edge.session.state import Session
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.paho.publish_packet import PublishPacket, decode_publish
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from fl_shared.tensors.manifest import ArraySpec
from fl_shared.transfer.download import ModelDownload
from tests.support.fuzz import packets
from tests.support.fuzz.aggregator_messages import CLIENT
from tests.support.fuzz.edge_harness import GOLDEN, PREDICTOR, EdgeHarness
from tests.support.fuzz.strategies import NOISE, Mutation

STATES = {"Idle", "Fetching", "Reporting", "ReportingFailure"}
PACKET_CHECKS = {
    "a PUBLISH packet that ends too early", "a variable byte integer of more than N bytes", "property N occurs twice",
    "a property without a length", "a binary property without a length", "a property longer than all of them",
    "property N reaches beyond its packet", "property N is not from N to N", "a subscription identifier of N",
    "property N in a PUBLISH packet",
}  # fmt: skip
"""The reasons why a packet is malformed."""
TOPICS = {
    "unknown topic",
    *(row.topic.__name__ for row in CHANNELS.rows if "edge" in row.receivers and row.messages),
}
"""Why the router drops a message: its topic is none of the protocol, or on this one it is not valid."""


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(noise=NOISE, blinks=st.booleans())
def test_an_edge_can_join_a_run_after_any_noise(noise: list[Mutation], blinks: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        harness = EdgeHarness(Path(scratch), seed=0)
        try:
            harness.join_a_run()
            seeds = harness.seeds()
            for mutation in noise:
                topic, payload = mutation(GOLDEN if mutation.where % 5 == 0 else seeds)
                client = PREDICTOR if mutation.where % 7 == 0 else CLIENT
                harness.take(client, topic, payload, retain=mutation.retain)
            if blinks:
                harness.reconnect()
            harness.join_a_run()
        finally:
            harness.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    payload=st.binary(max_size=60)
    | st.text(alphabet='{}[]":,pixels0123456789.eE-', max_size=60).map(str.encode),
    response=st.none()
    | st.text(max_size=40)
    | st.sampled_from(("fl/model", "fl/predictions/a", "$SYS/a", "a/#")),
    correlation=st.none() | st.binary(max_size=20),
    retain=st.booleans(),
)
def test_a_request_is_answered_once_or_not_at_all(
    predictor: EdgeHarness, payload: bytes, response: str | None, correlation: bytes | None, retain: bool
) -> None:
    before = predictor.answers
    predictor.ask(mqtt.Received("fl/predict", payload, retain, 1, response, correlation))
    sent = predictor.answers - before
    if retain and not payload:
        assert sent == 0  # it clears a retained one
    elif response is None or not t.is_response_topic_allowed("fl", response):
        assert sent == 1
    else:
        assert sent <= 1  # what MQTT has no topic for cannot be answered


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> EdgeHarness:
    harness = EdgeHarness(tmp_path_factory.mktemp("predictor"), seed=0)
    harness.join_a_run()
    return harness


def test_the_noise_reaches_every_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it were all dropped at the door, nothing would be shown by it: of the packets, the router or the sessions."""
    harness = EdgeHarness(tmp_path, seed=0)
    wanted, reached = STATES | PACKET_CHECKS | TOPICS, set[str]()

    def decode(command: int, packet: bytes) -> PublishPacket:
        try:
            return decode_publish(command, packet)
        except MalformedPacket as error:
            reached.add(re.sub(r"\d+", "N", str(error)))
            raise

    monkeypatch.setattr(packets, "decode_publish", decode)
    try:
        for _ in range(100):
            harness.join_a_run()
            harness.runtime._router._drop_counts.clear()  # it tells apart no more than `MAX_KINDS`
            seeds = harness.seeds()
            for _ in range(250):
                if harness.rng.random() < 0.1:
                    harness.take_request(harness.request())
                else:
                    client, topic, payload, retain = harness.noise(seeds)
                    harness.take(client, topic, payload, retain=retain)
                state = harness.edges[CLIENT].state
                reached.add(type(state.work).__name__ if isinstance(state, Session) else "Stopped")
                reached |= {kind.partition(":")[0] for kind in harness.runtime._router._drop_counts}
                harness.restart_stopped()
            if wanted <= reached and harness.answers > 50:
                return
    finally:
        harness.close()
    pytest.fail(f"not reached: {wanted - reached or ''}; {harness.answers} answers")


def test_a_model_for_which_there_is_no_memory_is_not_fetched() -> None:
    """How large it is, is what a peer says; it must not end the edges of a whole process."""
    huge = ArraySpec(name="w", shape=(2**29 - 1,))
    size = 4 * huge.values

    def allocate(wanted: int) -> bytearray:
        raise OSError(errno.ENOMEM, f"no room for {wanted}")

    download = ModelDownload("ab" * 32, allocate=allocate)
    download.subscription_changes(0.0)
    section = m.SectionManifest(name="weights", encoding="f32", arrays=(huge,), size=size)
    download.receive(
        m.ModelManifest(
            run="r", incarnation=1, seq=0, digest="ab" * 32, sections=(section,), size=size, chunk_size=2**20,
            chunks=2**11,
        ),
        0.0,
    )  # fmt: skip
    assert download.state == "failed"
    assert f"size: {size} bytes" in download.failure
    assert not download.subscription_changes(0.0).subscribe


def test_the_same_seed_makes_the_same_noise(tmp_path: Path) -> None:
    def hear(name: str) -> list[bytes]:
        (tmp_path / name).mkdir()
        harness = EdgeHarness(tmp_path / name, seed=7)
        try:
            return [harness.mutator.payload(random.Random(n).choice(GOLDEN), GOLDEN) for n in range(50)]
        finally:
            harness.close()

    assert hear("one") == hear("two")
