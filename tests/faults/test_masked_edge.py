"""A member of a masked round is killed when it has written down what it signs, and has not sent it (protocol, 10.9)."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from fl_edge.storage.run_keys_file import FILE_NAME
from fl_shared.masking.plan import CLOSING, Plan, plan_of, threshold_of
from fl_shared.masking.run_keys import is_signature
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.builders import partition
from tests.support.masked_rounds import keys_of
from tests.support.programs import kill
from tests.support.simulated_aggregator import FOLD, RUN, TRAINING, SimulatedAggregator
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

PREFIX: Final = "faults/masked"
TASK: Final = "synthetic-1000"
BASE: Final = m.ModelReference(version=0, digest="b" * 64)
"""Nobody has published it: the edge waits for it, and signs meanwhile."""
SET, OTHER_SET = ({"0": "0" * 64, one: one * 64} for one in ("1", "2"))


def edge(directory: Path, broker: TcpProxy, life: int) -> programs.Program:
    state = ("--state-dir", str(directory / "state"))
    return programs.edges(
        directory / str(life), broker.url, "0", "--task", TASK, "--prefix", PREFIX, "--workers", "1", *state
    )


def ask(wire: SimulatedAggregator, plan: Plan, included: dict[str, str]) -> None:
    closing = m.Closing(
        **wire.envelope(), round=1, plan=plan.digest.hex(), included=included, seconds_left=200.0
    )
    wire.send(t.UnmaskTopic("0"), closing, retain=True)


def test_10_9_an_edge_that_is_killed_signs_the_same_set_and_a_wiped_one_none(
    tmp_path: Path, shared_mosquitto: Mosquitto, stack: ExitStack
) -> None:
    wire = stack.enter_context(SimulatedAggregator(shared_mosquitto.endpoint, PREFIX, task=TASK))
    proxy = stack.enter_context(TcpProxy(shared_mosquitto.port))
    first = stack.enter_context(edge(tmp_path, proxy, 1))
    registration = wire.admit_fully("0", masked=True)
    assert registration.keys is not None
    assert registration.manifest is not None
    keys = {"0": registration.keys} | {name: keys_of(name).announce(RUN, name, None) for name in "12"}
    threshold = threshold_of(3, 0)
    masked = m.Masking(
        bits=64, threshold=threshold, least=threshold, colluders=0,
        members=tuple(m.Member(client=name, keys=text) for name, text in sorted(keys.items())),
    )  # fmt: skip
    wire.select(1, ("0", "1", "2"), BASE, masked=masked, seconds_left=200.0)
    selected = m.Selected(
        **wire.envelope(), round=1, task=TASK, cohort=("0", "1", "2"), base=BASE, masked=masked, encoding="f32",
        seconds_left=200.0, training=TRAINING, fold=FOLD, inline_limit=0,
    )  # fmt: skip
    plan = plan_of(selected, partition(), registration.manifest, 1000)
    closing, record = plan.closing(SET), tmp_path / "state" / FILE_NAME

    sending = proxy.hold("up", "agreed")
    ask(wire, plan, SET)
    sending.wait()
    assert closing.hex() in record.read_text(), "it is on the disk before it leaves"
    kill(first)
    proxy.cut()
    sending.release()
    assert not wire.all(m.Agreed)

    ask(wire, plan, OTHER_SET)
    proxy.restore()
    second = stack.enter_context(edge(tmp_path, proxy, 2))
    assert wire.admit_fully("0", masked=True).keys == registration.keys
    declined = wire.expect(m.Declined, 30, round=1)
    assert (declined.reason, declined.closing) == ("another-set", plan.closing(OTHER_SET).hex())
    ask(wire, plan, SET)
    agreed = wire.expect(m.Agreed, 30, round=1)
    assert agreed.closing == closing.hex()
    assert is_signature(plan.members[0].agree, agreed.signature, CLOSING + closing)

    kill(second)
    record.unlink()
    third = stack.enter_context(edge(tmp_path, proxy, 3))
    assert wire.admit_fully("0", masked=True).keys != registration.keys
    declined = wire.expect(m.Declined, 30, round=1, reason="not-a-member")
    wait_until(lambda: "the keys of edge 0 in round 1 are not its own" in third.err, 30, "it says why")
    for topic in (t.SelectedTopic(1), t.UnmaskTopic("0")):
        wire.clear(topic)
