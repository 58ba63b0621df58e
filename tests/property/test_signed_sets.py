"""A member of masked rounds signs and opens one set of updates a round, whatever it is asked and whenever it dies."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fl_edge.session import effects, events, machine
from fl_edge.session.state import Session
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_shared.masking.answers import sign_closing
from fl_shared.masking.masked_update import mask_update
from fl_shared.masking.run_keys import RunKeys
from fl_shared.masking.tallies import TALLIES
from fl_shared.protocol import messages as m
from tests.support.masked_edges import RUN, MaskedEdges
from tests.support.masked_rounds import of_array
from tests.support.session_script import CLIENT, EDGE, SessionScript

OTHERS = ("8", "9")
SETS = st.sampled_from([("7", "8"), ("7", "9"), ("8", "9"), ("7", "8", "9")])
ROUNDS = st.integers(1, 2)
Death = Literal["no", "before", "after", "sent"]
"""When the edge is killed: before it signs, after its record and before it sends, after it has sent."""


class Member(RuleBasedStateMachine):
    """The edge 7, whose aggregator works together with all other members, and asks it for anything."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.edges = MaskedEdges(self.directory, (CLIENT, *OTHERS))
        self.ledger: dict[int, set[str]] = {}
        """By round, the sets of which a signature or shares have left the edge."""
        self.made: dict[tuple[int, str], tuple[str, bytes]] = {}
        self.starts = 0
        self.wiped = False

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    @initialize()
    def start(self) -> None:
        """Starts the program of the edge: it is admitted, loads its data, and registers with its keys."""
        self.starts += 1
        self.member = self.edges.member(CLIENT)
        self.script = SessionScript(EDGE)
        self.script.state = Session(EDGE, masked_run=self.member.restored())
        self.script.do(f"connected s{self.starts}")
        for effect in self.script.do("admitted part=7/20 masked"):
            if isinstance(effect, effects.MakeRunKeys):
                self.script.happen(self.member.make_keys(effect.run, 0.0))
        manifest = self.edges.manifest
        self.script.happen(events.PartitionLoaded(0.0, 0, 40, 10, manifest.digest, values=manifest.values))
        self.script.do("admitted part=7/20 masked")

    def keys(self, client: str) -> RunKeys:
        keys = RunKeysFile(self.directory / client, client).keys(RUN)
        assert keys is not None
        return keys

    def update(self, number: int, client: str) -> tuple[str, bytes]:
        """The body and the shares of a member's update; that of the edge itself is nobody's, once it is wiped."""
        if (number, client) not in self.made:
            plan = self.edges.plan(self.edges.selected(number))
            integers, tallies = of_array(np.zeros(plan.values, np.int64)), np.zeros(TALLIES, np.int64)
            made = mask_update(plan, client, self.keys(client), integers, tallies, secrets.token_bytes)
            self.made[number, client] = made.body, made.shares
        return self.made[number, client]

    @rule(
        number=ROUNDS,
        included=SETS,
        opens=st.booleans(),
        death=st.sampled_from(["no", "before", "after", "sent"]),
    )
    def ask(self, number: int, included: tuple[str, ...], opens: bool, death: Death) -> None:
        if self.wiped and (number, CLIENT) not in self.made and CLIENT in included:
            return  # there is no such update
        selected = self.edges.selected(number)
        found = {client: self.update(number, client) for client in included}
        bodies = {client: body for client, (body, _) in found.items()}
        asked: m.Closing | m.Reveal = self.edges.closing(selected, bodies)
        if opens:
            plan = self.edges.plan(selected)
            signatures = {client: sign_closing(plan, client, self.keys(client), asked) for client in OTHERS}
            shares = {client: data for client, (_, data) in found.items()}
            asked = self.edges.reveal(selected, CLIENT, bodies, signatures, shares)
        self.script.happen(events.SelectionSeen(0.0, selected))
        self.perform(self.script.happen(events.UnmaskingAsked(0.0, asked)), death)

    def perform(self, done: tuple[effects.Effect, ...], death: Death) -> None:
        for effect in done:
            match effect:
                case effects.WorkOutAnswer() if death == "before":
                    self.start()
                case effects.WorkOutAnswer():
                    answered = self.member.answer(effect, 0.0)
                    if death == "after":
                        self.start()
                    else:
                        self.perform(self.script.happen(answered), death)
                case effects.Send(message=m.Agreed() | m.Opened() as message):
                    assert not self.wiped, "its keys of the run are gone"
                    self.ledger.setdefault(message.round, set()).add(message.closing)
                    if death == "sent":
                        self.start()
                case _:
                    pass

    @rule(seconds=st.sampled_from([1.0, 12.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.script.now += seconds
        due = machine.due(self.script.state)
        if due is not None and due <= self.script.now:
            self.perform(self.script.happen(events.TimePassed(self.script.now)), "no")

    @precondition(lambda self: len(self.ledger) == 2)
    @rule()
    def lose_the_state_directory(self) -> None:
        self.wiped = True
        shutil.rmtree(self.directory / CLIENT)
        (self.directory / CLIENT).mkdir()
        self.start()

    @invariant()
    def one_set_of_each_round_has_left_it(self) -> None:
        assert all(len(closings) == 1 for closings in self.ledger.values()), self.ledger


TestMember = Member.TestCase
TestMember.settings = settings(max_examples=25, stateful_step_count=10, deadline=None)


def test_a_member_signs_and_opens_what_it_is_asked_for_at_any_death() -> None:
    """Else the test above would show nothing."""
    deaths: tuple[Death, ...] = ("no", "before", "after", "sent")
    for death in deaths:
        member = Member()
        member.start()
        for opens in (False, True):
            member.ask(1, ("7", "8"), opens, death)
            member.ask(1, ("7", "8"), opens, "no")
            assert len(member.ledger[1]) == 1
        member.teardown()
