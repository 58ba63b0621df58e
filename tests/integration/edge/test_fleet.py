"""One process runs many edges, and a refusal of one does not end the others."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.transfer.publication import model_publication
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.edge_process import TEST_SPLIT, Start, log_of
from tests.support.simulated_aggregator import RUN, SimulatedAggregator, first_model
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.timeout(480)]


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
    assert len(programs.descendants(process.pid)) <= max(2, os.cpu_count() or 1)

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

    workers = programs.descendants(process.pid)
    process.kill()
    for name in ("0", "1", "2", "3", "evaluator"):
        wire.expect(m.ClientPresence, 10, client=name, state="offline")
    wait_until(lambda: not programs.alive(workers), 5, "the workers end")
