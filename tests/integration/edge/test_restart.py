"""An edge continues after its own death, a restart, and the death of its broker."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_edge.prediction.predictor import MAX_PENDING_PER_ASKER
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.transfer.publication import model_publication
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.builders import partition
from tests.support.edge_process import Start, log_of, prediction
from tests.support.simulated_aggregator import RUN, SimulatedAggregator, first_model
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.timeout(480)]


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
    long = m.TrainingRequest(epochs=100_000, batch_size=32, lr=0.01, momentum=0.9, seed=0)
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
    assert sum(error is None for error in errors) >= MAX_PENDING_PER_ASKER
    assert "trained" not in log_of(tmp_path).rpartition("selected for round 1")[2]
    workers = programs.descendants(process.pid)
    assert workers
    process.kill()
    assert wire.expect(m.ClientPresence, 30, state="offline").session == registered.session
    wait_until(lambda: not programs.alive(workers), 30, "the workers end")

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
