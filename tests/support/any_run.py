"""What may happen to any run, as rules of a Hypothesis state machine: `tests/property` has one for each mode.

After every step `tests.support.round_invariants` checks the machine; at the end the journal is replayed, and the run
is brought to its end in one of two ways: everyone is silent, or everyone behaves.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Buffering, Collecting, Finished
from fl_aggregator.round.state import Run
from tests.support.round_playbook import Playbook
from tests.support.versions import digest_of

IDS = ("0", "1", "2", "3", "7", "alice", "bob", "e")
RUNS = int(os.environ.get("FL_HYPOTHESIS_RUNS", "40"))
"""Examples of a state machine; more find more."""
ODD = (
    "reconnect",
    "start",
    "interrupt",
    "made round={number}",
    "pause number={number}",
    "fail {client} round={number}",
    "unusable {client} malformed round={number}",
)

clients = st.sampled_from(IDS)
times = st.sampled_from((0.0, 0.5, 1.0, 4.9, 5.0, 10.0, 15.0, 31.0, 60.0))
flips = st.booleans()
mostly = st.sampled_from((True, True, True, False))


class RunMachine(RuleBasedStateMachine):
    """Events of any run. A subclass opens it, and says how edges answer and what a restart of the aggregator is."""

    play: Playbook
    orders: list[do.StoreUpdate | do.Average]
    silent: bool

    def open(
        self, settings: dict[str, Any], first_weights: bool, gathered: bool, evaluator: bool, silent: bool
    ) -> None:
        """Begins a run. ``gathered``: all edges are there. ``silent``: none will be at the end."""
        self.play = Playbook(auto=False, first_weights=first_weights, **settings)
        self.orders = []
        self.silent = silent
        self.tell("start")
        if evaluator:
            self.tell("join e roles=evaluate")
        for client in range(settings["clients"] if gathered else 0):
            self.tell(f"join {client}")
            self.tell(f"load {client}")

    @property
    def state(self) -> Run:
        return self.play.state

    def tell(self, what: str | on.Event) -> None:
        """Hands over one event, and notes what the interpreter has to do."""
        steps = len(self.play.told)
        self.play.play(what)
        for _, effects in self.play.told[steps:]:
            self.orders += [effect for effect in effects if isinstance(effect, do.StoreUpdate | do.Average)]

    # --- edges come and go ------------------------------------------------------------------------------

    @rule(
        client=clients,
        roles=st.sampled_from(("train,predict", "train", "evaluate", "train,evaluate", "predict")),
        again=flips,
    )
    def join(self, client: str, roles: str, again: bool) -> None:
        known = client in self.state.roster
        self.tell(f"{'rejoin' if again else 'join'} {client}{'' if known else f' roles={roles}'}")

    @rule(client=clients, examples=st.sampled_from((10, 10, 10, 0, 7)), manifest=st.sampled_from("MMMN"))
    def load(self, client: str, examples: int, manifest: str) -> None:
        self.tell(f"load {client} examples={examples} manifest={manifest}")

    @rule(client=clients, task=st.sampled_from(("digits", "mnist")))
    def another_device_joins(self, client: str, task: str) -> None:
        self.tell(f"join {client} device=another session=another task={task}")

    @rule(client=clients, old=flips)
    def lose(self, client: str, old: bool) -> None:
        known = self.state.roster.get(client)
        session = known.session if known is not None and not old else f"{client}.0"
        self.tell(f"lose {client} session={session}")

    @rule(client=clients, newer=st.integers(-1, 2))
    def a_kit_is_revoked(self, client: str, newer: int) -> None:
        self.tell(f"revoke {client} list={max(1, self.state.revocations + newer)}")

    # --- the interpreter --------------------------------------------------------------------------------

    @precondition(lambda self: self.orders)
    @rule(usable=mostly, index=st.integers(0, 3))
    def interpret(self, usable: bool = True, index: int = 0) -> None:
        """Does what was ordered; one thing may be done sooner than another."""
        order = self.orders.pop(index % len(self.orders))
        now = self.play.now
        if isinstance(order, do.Average):
            manifest = order.contributors[0].manifest
            digest = digest_of(order.version)
            self.tell(on.ModelCreated(now=now, round=order.round, digest=digest, manifest=manifest))
            return
        update = order.update
        if usable or (update.client, update.round, update.digest) in self.play.invariants.accepted:
            self.tell(on.UpdateStored(now=now, update=update))
        else:
            self.tell(f"unusable {update.client} not-finite round={update.round} digest={update.digest}")

    # --- the rest ---------------------------------------------------------------------------------------

    @rule(
        client=clients,
        version=st.integers(0, 4),
        accuracy=st.sampled_from((0.5, 0.8)),
        split=st.sampled_from(("test", "holdout")),
        examples=st.sampled_from((10, 10, 0)),
    )
    def anyone_evaluates(self, client: str, version: int, accuracy: float, split: str, examples: int) -> None:
        self.tell(f"evaluate {client} {version} {accuracy} split={split} examples={examples} loss=1e308")

    @rule(seconds=times)
    def time_passes(self, seconds: float) -> None:
        self.tell(f"wait {seconds}")

    @precondition(lambda self: self.state.evaluations)
    @rule(index=st.integers(0, 2), most=st.integers(1, 4), accuracy=st.sampled_from((0.5, 0.8)))
    def some_who_were_asked_evaluate(self, index: int, most: int, accuracy: float) -> None:
        evaluation = self.state.evaluations[index % len(self.state.evaluations)]
        version = evaluation.model.version
        for client in sorted(evaluation.awaited)[:most]:
            self.tell(f"evaluate {client} {version} {accuracy} split={evaluation.split}")

    @rule(client=clients, what=st.sampled_from(ODD), number=st.integers(0, 9), really=st.integers(0, 9))
    def something_odd_happens(self, client: str, what: str, number: int, really: int) -> None:
        """A model is expected (and made) by the interpreter alone; what it has not been asked for is no model."""
        ordered = any(isinstance(order, do.Average) and order.round == number for order in self.orders)
        if (what != "interrupt" or really == 0) and not (ordered and what.startswith("made")):
            self.tell(what.format(client=client, number=number))

    @rule(number=st.none() | st.integers(0, 2))
    def the_operator_pauses(self, number: int | None) -> None:
        self.tell("pause for lunch" + ("" if number is None else f" number={number}"))

    @precondition(lambda self: self.state.paused is not None)
    @rule(again=flips)
    def the_pause_ends(self, again: bool) -> None:
        self.tell(f"unpause number={self.state.pauses - again}")

    # --- the end ----------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "play"):
            return
        self.play.invariants.check_replay(self.state)
        self.tell("unpause")
        if self.silent:
            self.end_in_silence()
        else:
            self.end_together()
        self.play.invariants.check_replay(self.state)

    def finish_orders(self) -> None:
        while self.orders:
            self.interpret(usable=True)

    def end_in_silence(self) -> None:
        """Every wait has a deadline: with nobody there, the run ends by itself."""
        for _ in range(400):
            self.finish_orders()
            if self.state.ended:
                return
            self.tell("wait 5")
        raise AssertionError(f"still {self.state.phase}")

    def end_together(self) -> None:
        """Whatever has happened: once everyone is back and does what it should, the run finishes."""
        self.finish_orders()
        if self.state.ended:
            return
        everyone = {str(n) for n in range(self.state.settings.clients)} | set(self.state.roster)
        for client in sorted(everyone):
            known = self.state.roster.get(client)
            device = f"device-{client}" if known is None else known.device
            self.tell(f"rejoin {client} device={device} roles=train,predict")
        for client in sorted(self.state.roster):
            known = self.state.roster.get(client)  # the machine may refuse some while others load
            if known is not None and known.trains:
                manifest = self.state.manifest or "M"
                self.tell(f"load {client} device={known.device} manifest={manifest}")
        for _ in range(200):
            self.finish_orders()
            phase = self.state.phase
            if self.state.ended:
                break
            if isinstance(phase, Collecting):
                self.tell(f"send {next(iter(phase.awaited), phase.cohort[0])} manifest={self.state.manifest}")
            for client in tuple(phase.tickets) if isinstance(phase, Buffering) else ():
                self.tell(f"send {client} manifest={self.state.manifest}")
            self.finish_orders()
            for evaluation in self.state.evaluations:
                for client in sorted(evaluation.awaited):
                    version = evaluation.model.version
                    self.tell(f"evaluate {client} {version} 0.6 split={evaluation.split}")
            self.tell("wait 3")
        assert isinstance(self.state.phase, Finished), self.state.phase


def run_machine(machine: type[RunMachine], runs: int, steps: int = 40) -> None:
    """Runs so many examples of a state machine."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
