"""A real edge that is killed in a masked round keeps to its one plan and its one set, over a broker (10.9, 10.10)."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_shared.masking.masked_update import MaskedSections, mask_update
from fl_shared.masking.plan import CLOSING, Plan, plan_of, threshold_of
from fl_shared.masking.run_keys import is_signature, parse_keys
from fl_shared.masking.shares import SharesSection
from fl_shared.masking.unmasking import opened_size
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import Manifest
from fl_shared.transfer.publication import model_publication
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.builders import partition
from tests.support.edge_under_test import CHUNK, TASK
from tests.support.masked_edges import text_of
from tests.support.masked_rounds import keys_of, of_array
from tests.support.simulated_aggregator import FOLD, RUN, TRAINING, SimulatedAggregator, first_model

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

OTHERS = ("m1", "m2", "m3", "m4")
"""The other members, who sign and send anything."""


def admitted(wire: SimulatedAggregator) -> str:
    """The keys of the edge, which has registered."""
    wire.admit(wire.expect(m.Registration, 30, client="7", run=None), masked=True)
    second = wire.expect(m.Registration, 60, client="7", run=RUN)
    wire.admit(second, masked=True)
    assert (second.examples, second.keys is None) == (1, False)
    return second.keys or ""


def select(
    wire: SimulatedAggregator, base: m.ModelReference, keys: str, others: tuple[str, ...]
) -> m.Selected:
    """Round 1, for the edge and ``others``."""
    known = {"7": keys, **{name: keys_of(name).announce(RUN, name, None) for name in others}}
    threshold = threshold_of(len(known), 1)
    members = tuple(m.Member(client=name, keys=known[name]) for name in sorted(known))
    selected = m.Selected(
        **wire.envelope(), round=1, task=TASK, cohort=tuple(known), base=base, seconds_left=60.0, training=TRAINING,
        fold=FOLD, encoding="f32", inline_limit=10_000_000,
        masked=m.Masking(bits=64, threshold=threshold, least=threshold, colluders=1, members=members),
    )  # fmt: skip
    wire.send(t.SelectedTopic(1), selected, retain=True)
    return selected


def updates(plan: Plan) -> dict[str, MaskedSections]:
    zeros = of_array(np.zeros(plan.values, np.int64)), np.zeros(8, np.int64)
    return {name: mask_update(plan, name, keys_of(name), *zeros, secrets.token_bytes) for name in OTHERS}


def asked(plan: Plan, made: dict[str, MaskedSections]) -> dict[str, Any]:
    bodies = {name: one.body for name, one in made.items()}
    return {"round": 1, "plan": plan.digest.hex(), "included": bodies, "seconds_left": 60.0}


def reveal(wire: SimulatedAggregator, plan: Plan, made: dict[str, MaskedSections], signed: bytes) -> m.Reveal:
    """``signed``: the closing of which there are the signatures of all others."""
    packages = {
        name: text_of(SharesSection.of(plan, one.shares).package(plan.index("7")))
        for name, one in made.items()
    }
    signatures = {name: text_of(keys_of(name).agree.sign(CLOSING + signed)) for name in OTHERS}
    return m.Reveal(**wire.envelope(), **asked(plan, made), signatures=signatures, packages=packages)


def test_an_edge_that_was_killed_masks_and_signs_nothing_else(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    wire = stack.enter_context(SimulatedAggregator(mosquitto.endpoint, "fl", task=TASK))
    arguments = (tmp_path, mosquitto.url, "7", "--task", TASK, "--chunk", str(CHUNK))
    edge = stack.enter_context(programs.edges(*arguments))
    keys = admitted(wire)
    wire.select(0, ("7",), None)
    first = wire.expect(m.Update, 20, round=0)
    wire.answer(first)
    base = wire.publish_model(model_publication(first_model(first), CHUNK), 0)
    manifest = Manifest(arrays=first.sections[0].arrays or ())

    selected = select(wire, base, keys, OTHERS)
    plan = plan_of(selected, partition(), manifest.digest, manifest.values)
    update = wire.expect(m.Update, 30, round=1)
    assert update.plan == plan.digest.hex()
    assert (update.examples, update.steps, update.metrics) == (1, 0, m.UpdateMetrics())
    wire.answer(update)
    unmask, set_one, set_two = t.UnmaskTopic("7"), updates(plan), updates(plan)
    wire.send(unmask, m.Closing(**wire.envelope(), **asked(plan, set_one)), retain=True)
    agreed = wire.expect(m.Agreed, 20, round=1)
    closing = plan.closing(asked(plan, set_one)["included"])
    assert is_signature(parse_keys(keys).agree, agreed.signature, CLOSING + closing)
    programs.kill(edge)

    wire.incarnation = 2  # put back to before the first set
    wire.send(t.SelectedTopic(1), selected.model_copy(update=wire.envelope()), retain=True)
    wire.send(unmask, m.Closing(**wire.envelope(), **asked(plan, set_two)), retain=True)
    edge = stack.enter_context(programs.edges(*arguments))
    assert admitted(wire) == keys
    assert wire.expect(m.Declined, 30, round=1).reason == "another-set"
    wire.send(unmask, reveal(wire, plan, set_two, closing), retain=True)
    assert wire.expect(m.Declined, 20, round=1, reason="wrong-signatures")
    other = plan.closing(asked(plan, set_two)["included"])
    wire.send(unmask, reveal(wire, plan, set_two, other), retain=True)
    assert wire.expect(m.Declined, 20, round=1, closing=other.hex(), reason="another-set")
    wire.send(unmask, reveal(wire, plan, set_one, closing), retain=True)
    opened = wire.expect(m.Opened, 20, round=1)
    assert (opened.unopened, len(opened.shares)) == ((), opened_size(plan, OTHERS))

    programs.kill(edge)
    wire.incarnation = 3
    wire.clear(unmask)
    select(wire, base, keys, OTHERS[:-1])
    stack.enter_context(programs.edges(*arguments))
    assert admitted(wire) == keys
    failed = wire.expect(m.TrainingFailed, 30, round=1)
    assert "has masked or signed something else in round 1" in failed.detail
