"""Models that are too large for one message travel in chunks, in both directions."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.manifest import Manifest
from fl_shared.tensors.sections import ModelSection
from fl_shared.transfer.publication import model_publication
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.edge_process import Start, log_of
from tests.support.simulated_aggregator import RUN, SimulatedAggregator, collect
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.timeout(480)]

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
        [worker] = programs.descendants(process.pid)
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
