"""Whatever comes in to the aggregator, nothing escapes, and honest edges get through (protocol, 1.5 and 5.6).

``benchmarks/fuzz.py`` does the same a million times; here Hypothesis looks for the shortest noise that does harm.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_aggregator.round.phases import Collecting
from fl_aggregator.server.fencing import Superseded
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from fl_shared.transfer import upload
from tests.support.fuzz.aggregator_harness import CHUNK, GOLDEN, NOISY, AggregatorHarness
from tests.support.fuzz.mutations import Seed
from tests.support.fuzz.peer_updates import corrupt
from tests.support.fuzz.sections import SectionHarness
from tests.support.fuzz.strategies import MUTATIONS, NOISE, Mutation
from tests.support.samples import MESSAGES

CHECKS = (
    "malformed", "wrong-version", "unknown-topic", "client-mismatch", "other-run", "other-incarnation",
    "not-granted",
    "wrong-size", "wrong-digest", "wrong-manifest", "wrong-base", "not-finite", "too-large",
    "duplicate",
)  # fmt: skip
"""The reasons why a message of an edge is refused, from the door to the values of its update."""
TOPICS = sorted({topic for topic, _ in MESSAGES.values()}, key=repr)


@settings(max_examples=100, deadline=None)
@given(topic=st.sampled_from(TOPICS), payload=st.binary(max_size=300))
def test_bytes_are_a_message_or_a_decode_error(topic: t.Topic, payload: bytes) -> None:
    _decode(topic, payload)


@settings(max_examples=40, deadline=None)
@given(mutation=MUTATIONS)
def test_a_mutated_message_is_a_message_or_a_decode_error(mutation: Mutation) -> None:
    text, payload = mutation(GOLDEN)
    topic = CHANNELS.parse("fl", text)
    assert topic is not None
    _decode(topic, payload)


def _decode(topic: t.Topic, payload: bytes) -> None:
    try:
        message = codec.decode(topic, payload)
    except codec.DecodeError:
        return
    # What is a message can be said again, and is then the same.
    assert codec.decode(topic, codec.encode(message)) == message


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rounds=st.lists(NOISE, min_size=1, max_size=2))
def test_a_run_goes_on_among_noise(rounds: list[list[Mutation]]) -> None:
    """With first weights from round 0 on; `finish_round` holds each model against what was accepted."""
    with tempfile.TemporaryDirectory() as scratch:
        harness = AggregatorHarness(Path(scratch) / "run", seed=0)
        try:
            for noise in ([], *rounds):
                phase = harness.begin_round()
                seeds = harness.seeds(phase)
                for mutation in noise:
                    topic, payload = mutation(GOLDEN if mutation.where % 5 == 0 else seeds)
                    harness.take(topic, harness.harmless(topic, payload), retain=mutation.retain)
                harness.finish_round()
            harness.replay()
            assert harness.oracle.accepted >= 3 * len(rounds)
        finally:
            harness.close()


@pytest.mark.parametrize("reason", CHECKS)
def test_a_check_refuses_what_is_aimed_at_it(tmp_path: Path, reason: str) -> None:
    """Every message of the noise gets as far as the check that its one fault is for."""
    harness = AggregatorHarness(tmp_path / "run", seed=5)
    try:
        harness.begin_round()
        harness.finish_round()
        phase = harness.begin_round()
        before = _refused(harness)
        _aim(harness, phase, reason)
        harness.turn_until(lambda: _refused(harness) != before, f"it is refused as {reason}")
        assert _refused(harness) - before == Counter({reason: 1})
        harness.finish_round()
    finally:
        harness.close()


def _refused(harness: AggregatorHarness) -> Counter[str]:
    """What has been refused so far, by reason."""
    return sum(map(Counter, harness.aggregator.rejections.total.values()), Counter())


def _aim(harness: AggregatorHarness, phase: Collecting, reason: str) -> None:
    """Sends messages of an edge that is asked for an update: all correct, but for one fault in the last one."""
    peer = harness.peers[NOISY[0]]
    assert peer.update is not None
    sender, topic = harness.sender(peer, phase), t.UpdatesTopic(peer.name)
    whole = upload.update_message(sender, 1, peer.update)
    (section,) = whole.sections
    message: m.Update | m.UpdateChunk = whole
    changes: dict[str, Any] = {}
    match reason:
        case "unknown-topic":
            topic = t.UpdatesTopic(f"{peer.name}/x")
        case "malformed":
            changes = {"examples": -1}
        case "wrong-version":
            changes = {"v": 255}
        case "client-mismatch":
            changes = {"client": NOISY[1]}
        case "other-run":
            changes = {"run": "another-run0"}
        case "other-incarnation":
            changes = {"incarnation": whole.incarnation + 1}
        case "wrong-base" | "wrong-digest":
            changes = {reason.removeprefix("wrong-"): "0" * 64}
        case "wrong-manifest":
            changes = {"sections": (section.model_copy(update={"manifest": "0" * 64}),)}
        case "wrong-size":
            changes = {"sections": (section.model_copy(update={"data": section.data[:-4]}),)}
        case "not-finite" | "too-large":
            value = np.float32(np.nan if reason == "not-finite" else 100.5).tobytes()
            update = harness.updates_of.edge(phase, lambda data: data.__setitem__(slice(4), value))
            message = upload.update_message(sender, 1, update)
        case "duplicate":
            harness.give(peer, phase, chunked=False)
            message = upload.update_message(sender, 2, harness.updates_of.edge(phase))
        case "not-granted":
            message = upload.chunk_message(sender, 1, peer.update, CHUNK, 0)
    harness.say(topic, message.model_copy(update=changes))


def test_the_noise_reaches_every_check(tmp_path: Path) -> None:
    """If it were all dropped at the door, nothing would be shown by it.

    About one round in six reaches the rarest check, and 200 rounds leave nothing to luck.
    """
    harness = AggregatorHarness(tmp_path / "run", seed=5)
    try:
        for _ in range(200):
            phase = harness.begin_round()
            seeds = harness.seeds(phase)
            for _ in range(400):
                topic, payload, retain = harness.noise(phase, seeds)
                harness.take(topic, payload, retain=retain)
            harness.finish_round()
            if harness.oracle.of_noise > 0 and set(CHECKS) <= set(_refused(harness)):
                break
        assert harness.oracle.of_noise > 0
        assert set(CHECKS) <= set(_refused(harness))
    finally:
        harness.close()


def test_sections_with_faults_are_refused_or_decoded_as_what_they_are() -> None:
    harness = SectionHarness(seed=0)
    for _ in range(5000):
        harness.take(harness.noise())
    assert min(harness.refused.values()) > 50
    assert min(harness.taken.values()) > 5


@pytest.mark.parametrize(
    ("encoding", "reasons"),
    [
        pytest.param("f32", "not-finite too-large wrong-size", marks=pytest.mark.long),
        pytest.param("bf16", "not-finite too-large wrong-size", marks=pytest.mark.long),
        ("q8", "not-finite too-large wrong-size malformed"),
        ("topk:0.1", "malformed wrong-size"),
        pytest.param("shuffle-deflate", "malformed", marks=pytest.mark.long),
    ],
)
def test_hostile_updates_in_every_encoding(tmp_path: Path, encoding: str, reasons: str) -> None:
    """They are refused, or are what they decode to in another way; so are sums, of which there are none with `topk`."""
    harness = AggregatorHarness(tmp_path / "run", seed=6, encoding=encoding)
    try:
        harness.begin_round()
        harness.finish_round()
        for _ in range(12):
            phase = harness.begin_round()
            for name in NOISY:
                update = harness.updates_of.peer(harness.peers[name], phase, partial(corrupt, harness.rng))
                sender = harness.sender(harness.peers[name], phase)
                harness.say(t.UpdatesTopic(name), upload.update_message(sender, 1, update))
            harness.finish_round()
        assert set(reasons.split()) <= set(_refused(harness))
        assert bool(harness.oracle.sums) == (encoding != "topk:0.1")
    finally:
        harness.close()


def test_the_noise_does_not_pretend_to_be_the_next_aggregator(tmp_path: Path) -> None:
    """The run would rightly end: only the aggregator's account may publish its births."""
    harness = AggregatorHarness(tmp_path / "run", seed=4)
    try:
        scope = harness.aggregator.scope
        birth = m.AggregatorPresence(state="online", session="x", run=scope.run, incarnation=99)
        assert harness.harmless("fl/aggregator", codec.encode(birth)) == b""
        with pytest.raises(Superseded):
            harness.say(t.AggregatorTopic(), birth)
    finally:
        harness.close()


def test_a_seed_gives_the_same_run_again(tmp_path: Path) -> None:
    def run(directory: Path) -> list[object]:
        harness = AggregatorHarness(directory, seed=3)
        try:
            for _ in range(3):
                phase = harness.begin_round()
                seeds = harness.seeds(phase)
                for _ in range(200):
                    topic, payload, retain = harness.noise(phase, seeds)
                    harness.take(topic, payload, retain=retain)
                harness.finish_round()
            return [harness.state, harness.aggregator.rejections.total, harness.rng.random()]
        finally:
            harness.close()

    assert run(tmp_path / "one") == run(tmp_path / "other")


def test_what_is_accepted_stays_what_it_was(tmp_path: Path) -> None:
    """An update that comes whole while another one of the same edge is coming in chunks: each has bytes of its own.

    They once had one file, and late chunks were written into the accepted update (or past its end, which kills).
    """
    harness = AggregatorHarness(tmp_path / "run", seed=1)
    try:
        harness.begin_round()
        harness.finish_round()
        phase = harness.begin_round()
        peer = harness.peers[NOISY[0]]
        assert peer.update is not None
        sender, topic = harness.sender(peer, phase), t.UpdatesTopic(peer.name)
        slow = harness.updates_of.edge(phase)
        harness.say(topic, upload.offer_message(sender, 1, slow, CHUNK))
        first, *others = harness.grants[peer.name, slow.digest]
        harness.say(topic, upload.chunk_message(sender, 2, slow, CHUNK, first))
        harness.say(topic, upload.update_message(sender, 3, peer.update))
        harness.turn_until(lambda: isinstance(harness.answers.get(peer.name), m.Accepted), "it is accepted")
        for index in others:
            harness.say(topic, upload.chunk_message(sender, 4, slow, CHUNK, index))
        state = harness.state.phase
        assert isinstance(state, Collecting)
        assert state.updates[peer.name].digest == peer.update.digest
        kept = harness.aggregator._directory.spool.read(phase.round, peer.name)
        assert bytes(kept.sections[0].data) == bytes(peer.update.sections[0].data)
        harness.finish_round()
    finally:
        harness.close()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 100.5])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_value_that_must_not_be_folded(tmp_path: Path, value: float, chunked: bool) -> None:
    """All that is said of the update is true; one of its values is not to be had."""
    harness = AggregatorHarness(tmp_path / "run", seed=2)
    try:
        harness.begin_round()
        harness.finish_round()
        phase = harness.begin_round()
        peer = harness.peers[NOISY[0]]

        def corrupt(data: bytearray) -> None:
            data[400:404] = np.float32(value).tobytes()

        peer.update = harness.updates_of.edge(phase, corrupt)
        with pytest.raises(AssertionError, match=r"not-finite|too-large") as refused:
            harness.give(peer, phase, chunked=chunked)
        assert "delta: " in str(refused.value)
        harness.finish_round()
        assert harness.oracle.of_noise == 0
    finally:
        harness.close()


def test_a_seed_is_taken_apart_and_put_together() -> None:
    for seed in GOLDEN:
        assert isinstance(seed, Seed)
        assert seed.format in ("json", "msgpack")
        assert seed.paths
