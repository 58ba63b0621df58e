"""How rounds close on a real broker, and what everyone hears who is too late, too many or not meant.

The edges are made by hand, so that each does just what the test says (`docs/protocol.md`, 5.5 to 5.9).
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.builders import session_of
from tests.support.simulated_edges import SimulatedEdges
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(480)]

MANIFEST = Manifest(arrays=(ArraySpec(name="w", shape=(5,)),))


class Run:
    """A real aggregator and its edges ``a``, ``b``, …"""

    def __init__(self, directory: Path, broker: Mosquitto, stack: ExitStack, *arguments: str) -> None:
        self.directory = directory
        self.edges = stack.enter_context(SimulatedEdges(broker.endpoint, MANIFEST))
        self.program = stack.enter_context(
            programs.aggregator(directory, broker.url, "--holdout", "0", "--wait", "120", *arguments)
        )
        self.edges.expect(m.AggregatorPresence, state="online")

    def opened(self, number: int) -> m.Selected:
        return self.edges.expect(m.Selected, round=number)

    def send(self, client: str, selected: m.Selected, value: float = 0.5, **changes: Any) -> None:
        base = None if selected.base is None else selected.base.digest
        vector = np.full(MANIFEST.values, value, np.float32)
        self.edges.send_update(client, self.edges.update(client, selected.round, base, vector, 10) | changes)

    def accepted(self, client: str, number: int) -> None:
        self.edges.expect(m.Accepted, client=client, round=number)

    def rejected(self, client: str, number: int, reason: str) -> str:
        return self.edges.expect(m.Rejected, client=client, round=number, reason=reason).detail

    def make_first_weights(self) -> None:
        selected = self.opened(0)
        assert selected.cohort is not None
        (first,) = selected.cohort
        self.send(first, selected)
        try:
            self.edges.expect(m.Accepted, 5.0, client=first, round=0)
        except AssertionError:
            # It may not listen for updates yet: edges repeat what is not answered.
            self.send(first, selected)
            self.accepted(first, 0)
        self.edges.expect(m.Result, round=0)

    def lose(self, client: str, session: str | None = None) -> None:
        """What the broker says of an edge whose connection has ended."""
        will = m.ClientPresence(client=client, state="offline", session=session or session_of(client))
        self.edges.send(t.PresenceTopic(client), will, retain=True)

    def history(self) -> list[dict[str, Any]]:
        return programs.history(self.directory)


def test_target_deadline_and_substitutes(tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack) -> None:
    settings = ("--clients", "4", "--per-round", "2", "--over-select", "1", "--quorum", "1", "--rounds", "3")
    run = Run(tmp_path, mosquitto, stack, *settings, "--grace", "0", "--deadline", "3")
    run.edges.join(dict.fromkeys("abcd", 10))
    run.make_first_weights()

    one = run.opened(1)
    assert one.cohort is not None
    assert len(one.cohort) == 3, "one more than is wanted"
    first, second, third = one.cohort
    (outsider,) = set("abcd") - set(one.cohort)
    run.send(first, one)
    run.accepted(first, 1)
    run.send(first, one)
    run.accepted(first, 1)  # the same for the second time
    run.send(first, one, 0.25)
    assert "has already been accepted" in run.rejected(first, 1, "duplicate")
    run.send(outsider, one)
    assert "is not selected in round 1" in run.rejected(outsider, 1, "not-selected")
    run.send(third, one, round=99)
    assert "round: 99, but round 1 is open" in run.rejected(third, 99, "stale-round")
    run.send(second, one)
    run.accepted(second, 1)  # the target is in
    two = run.opened(2)
    run.send(third, one)
    assert "all the updates it needed" in run.rejected(third, 1, "surplus")
    run.send(first, one)
    run.accepted(first, 1)  # who has not heard the answer still gets it

    assert two.cohort is not None
    first, second, third = two.cohort
    run.send(first, two)
    run.accepted(first, 2)
    three = run.opened(3)  # after the deadline, with the quorum
    run.send(second, two)
    assert "has closed" in run.rejected(second, 2, "late")

    assert three.cohort is not None
    (outsider,) = set("abcd") - set(three.cohort)
    first, second, third = three.cohort
    run.send(first, three)
    run.accepted(first, 3)
    run.lose(third)
    longer = run.opened(3)
    assert longer.cohort == (*three.cohort, outsider)
    run.send(outsider, longer)
    run.accepted(outsider, 3)
    run.program.ends_well()

    lines = run.history()
    assert [line["version"] for line in lines] == [1, 2, 3]
    assert lines[0]["participants"] == sorted(one.cohort[:2])
    assert lines[1]["participants"] == [two.cohort[0]]
    assert set(lines[1]["missing"]) == set(two.cohort[1:])
    assert all("deadline" in why or "no update" in why for why in lines[1]["missing"].values()), lines[1]
    assert lines[2]["participants"] == sorted((first, outsider))
    assert lines[2]["missing"][third].startswith("offline")


@pytest.mark.long
def test_all_who_are_present_have_answered_after_the_grace(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    settings = ("--clients", "2", "--per-round", "2", "--quorum", "1", "--rounds", "2", "--grace", "5")
    run = Run(tmp_path, mosquitto, stack, *settings)
    run.edges.join({"a": 10, "b": 10})
    run.make_first_weights()

    one = run.opened(1)
    run.send("a", one)
    run.accepted("a", 1)
    run.lose("b")
    wait_until(lambda: "edge b is offline" in run.program.err, 30, "its loss is noticed")
    run.edges.register("b", session="another")
    run.edges.expect(m.Admitted, client="b", session="another")
    run.edges.expect_silence(m.Result, 6.0)  # longer than the grace
    run.send("b", one, session="another")
    run.accepted("b", 1)
    assert run.edges.expect(m.Result, round=1).participants == ("a", "b")

    two = run.opened(2)
    run.send("b", two, session="another")
    run.accepted("b", 2)
    run.lose("a")
    result = run.edges.expect(m.Result, 30.0, round=2)
    assert result.participants == ("b",)
    assert result.missing["a"].startswith("offline")
    run.program.ends_well()


def test_an_abandoned_round_leaves_the_model_and_a_new_one_is_opened(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    settings = ("--clients", "2", "--per-round", "2", "--quorum", "2", "--rounds", "1", "--deadline", "1")
    run = Run(tmp_path, mosquitto, stack, *settings)
    run.edges.join({"a": 10, "b": 10})
    run.make_first_weights()

    one = run.opened(1)
    run.send("a", one)
    run.accepted("a", 1)
    ended = run.edges.expect(m.Result, round=1)
    assert (ended.outcome, ended.version) == ("abandoned", None)
    assert ended.reason == "the deadline passed, but only 1 of 2 updates arrived"
    run.send("b", one)
    run.rejected("b", 1, "late")

    two = run.opened(2)
    assert two.base == one.base, "the model stays as it was"
    for client in "ab":
        failed = m.TrainingFailed(
            **run.edges.envelope(), client=client, session=session_of(client), round=2, detail="no power"
        )
        run.edges.send(t.UpdatesTopic(client), failed)
    ended = run.edges.expect(m.Result, round=2)
    assert ended.outcome == "abandoned"
    assert ended.reason == "all connected edges have answered, but only 0 of 2 updates arrived"
    assert ended.missing == {"a": "failed: no power", "b": "failed: no power"}

    three = run.opened(3)
    for client in "ab":
        run.send(client, three)
        run.accepted(client, 3)
    run.program.ends_well()
    lines = run.history()
    assert [(line["round"], line["version"]) for line in lines] == [(1, None), (2, None), (3, 1)]


@pytest.mark.long
def test_so_many_rounds_may_be_abandoned_and_no_more(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    settings = ("--clients", "1", "--per-round", "1", "--rounds", "1", "--deadline", "0.5")
    run = Run(tmp_path, mosquitto, stack, *settings)
    run.edges.join({"a": 10})
    run.make_first_weights()
    assert run.program.wait(40) == 1, run.program.output
    assert "5 rounds in a row were abandoned" in run.program.err + run.program.out
    assert [line["outcome"] for line in run.history()] == ["abandoned"] * 5
