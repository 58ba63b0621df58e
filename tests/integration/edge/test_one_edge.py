"""One edge registers, trains, evaluates, answers requests for predictions, and ends."""

from __future__ import annotations

import contextlib
import io
import json
import signal
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.sections import ModelSection, model_digest
from fl_shared.transfer.publication import model_publication
from tests.support.broker import Mosquitto
from tests.support.edge_process import TEST_SPLIT, Start, log_of, prediction
from tests.support.simulated_aggregator import SimulatedAggregator, first_model

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.timeout(480)]

TRAINING = 1797 - TEST_SPLIT


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


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
    # Not answered: it is offered, in case that it was too large for the broker, and is the same.
    again = wire.expect(m.Offer, 15, round=1)
    assert again.digest == update.digest
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
    assert process.wait(30) == 130
    assert wire.expect(m.ClientPresence, 30, state="offline").session == born.session
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
