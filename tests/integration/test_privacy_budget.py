"""A real edge with a budget, on a real broker: an aggregator that begins anew gets nothing beyond it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_edge.storage.privacy_ledger import FILE_NAME
from fl_shared.protocol import messages as m
from fl_shared.transfer.publication import model_publication
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.simulated_aggregator import SimulatedAggregator, first_model

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges")]

TASK = "digits-mlp"
OPTIONS = ("--task", TASK, "--light", "--dp-local", "4,0.5", "--privacy-budget", "1.5")
ALLOWED = 2


def test_an_aggregator_that_begins_anew_gets_nothing_beyond_the_budget(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    wire = stack.enter_context(SimulatedAggregator(mosquitto.endpoint, "fl", task=TASK))
    with programs.edges(tmp_path, mosquitto.url, "7", *OPTIONS) as edge:
        session = wire.admit_fully("7").session
        wire.select(0, ("7",), None)
        first = wire.expect(m.Update, 20, round=0)
        wire.answer(first)
        base = wire.publish_model(model_publication(first_model(first), 2**20), 0, "holdout")
        for number in range(1, ALLOWED + 1):
            wire.select(number, ("7",), base)
            wire.answer(wire.expect(m.Update, 20, round=number))
        wire.select(ALLOWED + 1, ("7",), base)
        failed = wire.expect(m.TrainingFailed, 20, round=ALLOWED + 1)
        assert failed.detail.startswith("its privacy budget is spent (ε 1.")
        assert " of 1.5; another update would make it " in failed.detail
        wire.expect(m.Evaluation, 20)
        programs.kill(edge)
    ledger = tmp_path / "state" / FILE_NAME
    lines = ledger.read_text().splitlines()
    assert len(lines) == 1 + ALLOWED

    with programs.edges(tmp_path, mosquitto.url, "7", *OPTIONS):
        again = wire.take(
            lambda one: one.is_a(m.Registration, run=None) and one.message.session != session,  # type: ignore[union-attr]
            "a registration of the restarted edge",
            timeout=30,
        ).message
        assert isinstance(again, m.Registration)
        wire.incarnation = 2
        wire.admit(again)
        unable = wire.take(
            lambda one: isinstance(one.message, m.Registration) and one.message.unable is not None,
            "a registration that says why not",
        ).message
        assert isinstance(unable, m.Registration)
        assert unable.unable is not None
        assert unable.unable.startswith("its privacy budget is spent")
    assert ledger.read_text().splitlines() == lines
    says_no_number_of_its_data(wire)


def says_no_number_of_its_data(wire: SimulatedAggregator) -> None:
    """Of all messages of the edge. An update has values with noise, and the weight of one example."""
    told: dict[str, tuple[object, ...]] = {
        "examples": (None, 0, 1),
        "steps": (0,),
        "seconds": (0.0,),
        "loss": (0.0,),
        "metrics": ({}, (), m.UpdateMetrics()),
        "confusion": (None,),
        "before": (None,),
    }
    seen: set[str] = set()
    for one in wire.received:
        if not isinstance(message := one.message, m.Registration | m.Update | m.Evaluation):
            continue
        for name, allowed in told.items():
            if hasattr(message, name) and not (name == "metrics" and isinstance(message, m.Registration)):
                assert getattr(message, name) in allowed, (message.kind, name)
                seen.add(f"{message.kind}.{name}")
    assert {"register.examples", "update.metrics", "evaluation.loss"} <= seen
