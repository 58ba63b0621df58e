"""``fl-edge`` as a user starts it, on a real Mosquitto; the test is the aggregator, over the wire."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import Manifest, content_digest
from fl_shared.tensors.sections import ModelSection, model_digest
from fl_shared.transfer.publication import model_publication
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.builders import partition
from tests.support.client import Received
from tests.support.simulated_aggregator import RUN, SimulatedAggregator, collect, first_model
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.timeout(90)]

TEST_SPLIT = 359
"""A fifth of the 1797 digits; the parts are of the others."""
TRAINING = 1797 - TEST_SPLIT

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``fl-edge`` with these arguments; what it says goes to ``edge-N.log`` in the test's directory."""
    running: list[subprocess.Popen[str]] = []

    def begin(url: str, prefix: str, *arguments: str) -> subprocess.Popen[str]:
        log = (tmp_path / f"edge-{len(running)}.log").open("w")
        command = [sys.executable, "-m", "fl_edge", "--broker", url, "--prefix", prefix, "--keepalive", "2"]
        process = subprocess.Popen([*command, *arguments], cwd=tmp_path, stderr=log, text=True)
        running.append(process)
        return process

    yield begin
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def log_of(tmp_path: Path, number: int = 0) -> str:
    return (tmp_path / f"edge-{number}.log").read_text()


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in tasks for child in file.read_text().split()]


def test_one_edge_from_its_registration_to_predictions(
    shared_mosquitto: Mosquitto, stack: ExitStack, start: Start, tmp_path: Path
) -> None:
    prefix = "edge/one"
    wire = stack.enter_context(SimulatedAggregator(shared_mosquitto.endpoint, prefix))
    process = start(shared_mosquitto.url, prefix, "--id", "lab-a", "--state-dir", "state")

    born = wire.expect(m.ClientPresence, 20)
    second = wire.admit_fully("lab-a")
    assert (born.state, born.session) == ("online", second.session)
    assert second.examples is not None
    assert second.examples == pytest.approx(TRAINING / 20 * 0.8, abs=2), "a fifth is held out"

    wire.select(0, ("lab-a",), None)
    first = wire.expect(m.Update, 30, round=0)
    assert first.base is None
    sections = first_model(first)
    as_update = [replace(each, name="delta") for each in sections]
    assert model_digest(as_update) == first.digest
    assert second.manifest == sections[0].manifest.digest
    wire.answer(first)

    # Version 0 in many chunks: more than one window of them.
    model = model_publication(sections, chunk_size=len(sections[0].data) // 20)
    assert model.chunks > 16
    base = wire.publish_model(model, 0, evaluate="holdout")
    evaluation = wire.expect(m.Evaluation, 30)
    assert (evaluation.version, evaluation.digest, evaluation.split) == (0, base.digest, "holdout")
    assert evaluation.examples + second.examples == pytest.approx(TRAINING / 20, abs=1)

    wire.select(1, ("lab-a",), base)
    wire.select(1, ("lab-a", "lab-b"), base)
    update = wire.expect(m.Update, 30, round=1)
    assert update.base == base.digest
    assert update.steps > 0
    delta = np.frombuffer(update.sections[0].data, "<f4")
    assert delta.shape == (sections[0].manifest.values,)
    assert np.isfinite(delta).all()
    assert np.abs(delta).max() > 0
    assert update.metrics.train is not None
    # Not answered: it comes again, and is the same.
    again = wire.expect(m.Update, 15, round=1)
    assert (again.digest, again.sections) == (update.digest, update.sections)
    assert again.seq > update.seq
    wire.answer(again)
    wire.clear(t.SelectedTopic(1))
    wire.select(1, ("lab-a",), base)
    wire.expect_silence(m.Update, 1.0)

    weights = np.frombuffer(sections[0].data, "<f4") + delta
    newer = model_publication(
        [ModelSection("weights", sections[0].manifest, weights.astype("<f4").tobytes())], 2**20
    )
    wire.publish_model(newer, 1)
    _ask_all_kinds(wire, prefix)

    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert process.wait(10) == 130
    assert time.monotonic() - begun < 3
    assert wire.expect(m.ClientPresence, 5, state="offline").session == born.session
    log = log_of(tmp_path)
    for said in (
        "connected to mqtt://",
        "partition 0 of 20",
        "registered for run",
        "selected for round 1",
        "accepted",
    ):
        assert said in log, log
    assert "Traceback" not in log


def prediction(received: Received) -> m.Prediction:
    assert isinstance(received.message, m.Prediction)
    return received.message


def _ask_all_kinds(wire: SimulatedAggregator, prefix: str) -> None:
    picture = np.full((40, 40), 255, np.uint8)
    picture[8:12, 8:32] = picture[8:32, 18:22] = 0
    # The connection for requests may still be on its way: whoever asks must be ready to ask again (7.5).
    for _ in range(20):
        wire.ask(png(picture), response_topic=f"{prefix}/predictions/me", correlation=b"17", expiry=10)
        with contextlib.suppress(AssertionError):
            received = wire.expect_received(m.Prediction, 1.0)
            break
    answer = prediction(received)
    assert received.topic == f"{prefix}/predictions/me"
    assert received.correlation == b"17"
    assert not received.retained
    assert b"\n" not in received.payload
    assert answer.version == 1, "the newest that was announced"
    assert answer.probabilities is not None
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-3)
    assert answer.label == max(answer.probabilities, key=answer.probabilities.__getitem__)

    wire.ask(json.dumps({"pixels": picture.tolist()}).encode(), of="lab-a")
    received = wire.expect_received(m.Prediction, 10)
    from_json = prediction(received)
    assert received.topic == f"{prefix}/predictions"
    assert from_json.probabilities == pytest.approx(answer.probabilities)
    assert from_json.sha256 != answer.sha256

    for garbage in (b"", b"no picture", b'{"pixels": 3}', png(picture)[:50]):
        wire.ask(garbage)
        refused = wire.expect(m.Prediction, 10)
        assert refused.error, garbage
        assert refused.label is None

    wire.ask(png(picture), response_topic=f"{prefix}/clients/lab-a/presence")
    received = wire.expect_received(m.Prediction, 10)
    refused = prediction(received)
    assert received.topic == f"{prefix}/predictions"
    assert refused.error is not None
    assert "response topic" in refused.error


def test_an_edge_killed_in_training_goes_offline_and_its_workers_end(
    shared_mosquitto: Mosquitto, stack: ExitStack, start: Start, tmp_path: Path
) -> None:
    prefix = "edge/killed"
    wire = stack.enter_context(SimulatedAggregator(shared_mosquitto.endpoint, prefix))
    process = start(shared_mosquitto.url, prefix, "--id", "7")
    registered = wire.admit_fully("7")
    wire.select(0, ("7",), None)
    first = wire.expect(m.Update, 30)
    base = wire.publish_model(model_publication(first_model(first), 2**20), 0)
    wire.answer(first)
    long = m.TrainingSettings(epochs=100_000, batch_size=32, lr=0.01, momentum=0.9, seed=0)
    wire.select(1, ("7",), base, training=long)
    wait_until(lambda: "selected for round 1" in log_of(tmp_path), 10, "the edge logs: selected for round 1")
    time.sleep(0.5)
    # It trains, and answers a burst of requests meanwhile: each one once, and what is too much with an error.
    pixels = json.dumps({"pixels": [[0] * 8] * 8}).encode()
    for number in range(100):
        wire.ask(pixels, of="7", response_topic=f"{prefix}/predictions/me", correlation=b"%d" % number)
    answers = [wire.expect_received(m.Prediction, 20) for _ in range(100)]
    assert {received.correlation for received in answers} == {b"%d" % number for number in range(100)}
    errors = [prediction(received).error for received in answers]
    assert set(errors) <= {None, "busy; try again"}
    assert sum(error is None for error in errors) >= 32
    assert "trained" not in log_of(tmp_path).rpartition("selected for round 1")[2]
    workers = children(process.pid)
    assert workers
    process.kill()
    assert wire.expect(m.ClientPresence, 5, state="offline").session == registered.session
    wait_until(lambda: not programs.alive(workers), 5, "the workers end")

    # The same device comes back, is told of the round that is still open, and that its update is not there.
    start(shared_mosquitto.url, prefix, "--id", "7")
    back = wire.expect(m.Registration, 30, run=None)
    assert back.device == registered.device
    assert back.session != registered.session
    part = partition()
    wire.admit(back, partition=part)
    wire.admit(wire.expect(m.Registration, 30, run=RUN), partition=part)
    wait_until(
        lambda: "selected for round 1" in log_of(tmp_path, 1), 10, "the edge logs: selected for round 1"
    )
    wire.clear(t.SelectedTopic(1))
    wait_until(lambda: "no longer open" in log_of(tmp_path, 1), 10, "the edge logs: no longer open")


def test_the_device_is_the_same_after_a_restart(
    shared_mosquitto: Mosquitto, stack: ExitStack, start: Start
) -> None:
    wire = stack.enter_context(SimulatedAggregator(shared_mosquitto.endpoint, "edge/device"))
    devices = []
    for _ in range(2):
        process = start(shared_mosquitto.url, "edge/device", "--id", "7")
        devices.append(wire.expect(m.Registration, 20).device)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        wire.take_all()
    assert devices[0] == devices[1]


def test_a_fleet_is_many_edges_in_one_process(
    shared_mosquitto: Mosquitto, stack: ExitStack, start: Start, tmp_path: Path
) -> None:
    prefix, names = "edge/fleet", tuple(str(k) for k in range(5))
    wire = stack.enter_context(SimulatedAggregator(shared_mosquitto.endpoint, prefix))
    process = start(
        shared_mosquitto.url, prefix, "--id", "0-4", "--evaluator", "evaluator", "--state-dir", "s"
    )
    for name in names:
        wire.admit_fully(name, int(name))
    evaluator = wire.expect(m.Registration, 20, client="evaluator")
    assert evaluator.roles == ("evaluate",)
    wire.admit(evaluator, partition=None)
    assert len({wire.expect(m.ClientPresence, 5, client=name).session for name in names}) == 5
    wire.select(0, ("3",), None)
    first = wire.expect(m.Update, 30)
    assert first.client == "3"
    wire.answer(first)
    base = wire.publish_model(model_publication(first_model(first), 2**20), 0, evaluate="test")
    assert wire.expect(m.Evaluation, 30).examples == TEST_SPLIT
    wire.select(1, names, base)
    updates = [wire.expect(m.Update, 30, round=1, client=name) for name in names]
    assert len({update.digest for update in updates}) == 5
    assert len(children(process.pid)) <= max(2, os.cpu_count() or 1)

    # Refusing one lets the others go on.
    again = m.AggregatorPresence(state="online", session="a2", run=RUN, incarnation=1)
    wire.send(t.AggregatorTopic(), again, retain=True)
    register = wire.expect(m.Registration, 20, client="4", run=None)
    refusal = m.Refused(
        **wire.envelope(), client="4", session=register.session, reason="id-in-use", detail="for 3 s"
    )
    wire.send(t.RepliesTopic("4"), refusal)
    assert wire.expect(m.ClientPresence, 5, client="4", state="offline")
    wait_until(lambda: "id-in-use" in log_of(tmp_path), 5, "the edge logs: id-in-use")
    assert process.poll() is None

    workers = children(process.pid)
    process.kill()
    for name in ("0", "1", "2", "3", "evaluator"):
        wire.expect(m.ClientPresence, 10, client=name, state="offline")
    wait_until(lambda: not programs.alive(workers), 5, "the workers end")


def test_the_broker_may_die_and_come_back(mosquitto: Mosquitto, stack: ExitStack, start: Start) -> None:
    wire = stack.enter_context(SimulatedAggregator(mosquitto.endpoint, "fl"))
    start(mosquitto.url, "fl", "--id", "7")
    wire.admit_fully("7")
    wire.select(0, ("7",), None)
    update = wire.expect(m.Update, 30)
    mosquitto.kill()
    mosquitto.start()
    wire = stack.enter_context(SimulatedAggregator(mosquitto.endpoint, "fl", incarnation=2))
    wire.admit(wire.expect(m.Registration, 20, run=None))
    kept = wire.expect(m.Update, 20)
    assert (kept.digest, kept.incarnation) == (update.digest, 2)
    assert kept.session != update.session


VALUES = 2_000_000
"""Of the synthetic model: 8 MB."""


@pytest.mark.parametrize("extra", ["", "max_packet_size 131072", "max_queued_messages 100"])
def test_large_models_go_both_ways_in_chunks(
    extra: str, tmp_path: Path, stack: ExitStack, start: Start
) -> None:
    directory = tmp_path / "broker"
    directory.mkdir()
    broker = Mosquitto(directory, extra=[extra] if extra else [])
    hears = ("register/#", "updates/#", "clients/+/presence", "evaluations/#")
    try:
        wire = stack.enter_context(
            SimulatedAggregator(broker.endpoint, "fl", *hears, task=f"synthetic-{VALUES}")
        )
        process = start(broker.url, "fl", "--id", "7", "--task", f"synthetic-{VALUES}")
        wire.admit_fully("7")

        # The first weights come up in chunks, as many at a time as an aggregator may ask for.
        wire.select(0, ("7",), None, inline_limit=0)
        offer = wire.expect(m.Offer, 20, round=0)
        [section] = offer.sections
        assert section.arrays is not None
        assert (offer.size, section.size) == (4 * VALUES, 4 * VALUES)
        if "packet" in extra:
            assert 129_000 < offer.chunk_size < 131_072
        else:
            assert offer.chunk_size == 2**20
        have: dict[int, bytes] = {}
        while len(have) < offer.chunks:
            collect(wire, offer, have, most=64)
        first = whole(offer, have)
        wire.answer(offer)

        # The base goes down in as many chunks as the broker likes.
        arrays = Manifest(arrays=section.arrays)
        model = model_publication(
            [ModelSection("weights", arrays, first)], min(2**17 - 2048, offer.chunk_size)
        )
        assert model.chunks > 50
        base = wire.publish_model(model, 0, evaluate="holdout")
        wire.select(1, ("7",), base, inline_limit=1000)
        offer = wire.expect(m.Offer, 20, round=1)
        assert offer.base == model.digest
        assert offer.sections[0].arrays is None

        # In the middle the aggregator starts again; what has come already need not come again.
        have = {}
        collect(wire, offer, have, most=3)
        wire.incarnation = 2
        again = m.AggregatorPresence(state="online", session="a2", run=RUN, incarnation=2)
        wire.send(t.AggregatorTopic(), again, retain=True)
        wire.admit(wire.expect(m.Registration, 20, run=None))
        offer = wire.expect(m.Offer, 20, incarnation=2)
        while len(have) < offer.chunks:
            collect(wire, offer, have, most=40)
        wire.answer(offer)
        delta = np.frombuffer(whole(offer, have), "<f4")
        assert 0 < np.abs(delta).max() <= 1e-3
        wire.expect_silence(m.UpdateChunk, 0.5)
        wait_until(lambda: "round 1: accepted" in log_of(tmp_path), 5, "the edge logs: round 1: accepted")
        assert "not sent" not in log_of(tmp_path)
        [worker] = children(process.pid)
        assert "libtorch" not in Path(f"/proc/{worker}/maps").read_text()
    finally:
        broker.stop()


def whole(offer: m.Offer, have: dict[int, bytes]) -> bytes:
    """The data of an update with one section, if its digest is what was offered."""
    data = b"".join(have[index] for index in range(offer.chunks))
    [section] = offer.sections
    assert content_digest([(section.name, section.encoding, section.manifest, data)]) == offer.digest
    return data


def test_an_upload_goes_on_after_the_broker_has_died(
    mosquitto: Mosquitto, stack: ExitStack, start: Start
) -> None:
    task = f"synthetic-{VALUES}"
    hears = ("register/#", "updates/#")
    wire = stack.enter_context(SimulatedAggregator(mosquitto.endpoint, "fl", *hears, task=task))
    start(mosquitto.url, "fl", "--id", "7", "--task", task, "--chunk", "65536")
    wire.admit_fully("7")
    wire.select(0, ("7",), None, inline_limit=0)
    offer = wire.expect(m.Offer, 20)
    assert offer.chunk_size == 65_536
    have: dict[int, bytes] = {}
    collect(wire, offer, have, most=50)
    wire.grant(offer, tuple(range(50, 100)))
    mosquitto.kill()
    mosquitto.start()
    wire = stack.enter_context(SimulatedAggregator(mosquitto.endpoint, "fl", *hears, task=task))
    wire.admit(wire.expect(m.Registration, 20, run=None))
    again = wire.expect(m.Offer, 20)
    assert (again.digest, again.chunk_size) == (offer.digest, offer.chunk_size)
    assert again.session != offer.session
    while len(have) < again.chunks:
        collect(wire, again, have, most=64)
    assert whole(again, have)


def run_edge(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fl_edge", *arguments],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_second_edge_with_the_same_state_directory_exits_2(
    shared_mosquitto: Mosquitto, stack: ExitStack, start: Start, tmp_path: Path
) -> None:
    wire = stack.enter_context(SimulatedAggregator(shared_mosquitto.endpoint, "edge/lock"))
    first = start(shared_mosquitto.url, "edge/lock", "--id", "7")
    wire.expect(m.Registration, 20)
    second = run_edge(tmp_path, "--id", "7", "--broker", shared_mosquitto.url)
    assert second.returncode == 2
    assert f"in use by process {first.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_wrong_address_is_told_and_wait_bounds_it(tmp_path: Path) -> None:
    ended = run_edge(tmp_path, "--id", "7", "--broker", "mqtt://127.0.0.1:1", "--wait", "1")
    assert ended.returncode == 2
    assert "nothing listens on port 1 of 127.0.0.1" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_broker_that_wants_an_account_ends_it_with_2(tmp_path: Path) -> None:
    directory = tmp_path / "closed"
    directory.mkdir()
    broker = Mosquitto(directory, allow_anonymous=False)
    try:
        ended = run_edge(tmp_path, "--id", "7", "--broker", broker.url)
    finally:
        broker.stop()
    assert ended.returncode == 2
    assert "FL_PASSWORD" in ended.stderr
    assert "Traceback" not in ended.stderr
