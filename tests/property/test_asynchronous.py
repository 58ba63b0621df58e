"""The machine of an asynchronous run against anything that edges, the network and the clock may do to it.

Rules and the end of a run are those of `tests.support.any_run`; tickets, and a kill at any step, are here. After every
step these hold:

- all of `tests.support.buffering_promises`: how many edges are at work, what a ticket begins from and when it ends,
  that nothing is late, what is folded, how stale it is, and what a version is made of;
- all of `tests.support.round_invariants`: the same step twice is the same, what changes the state is recorded, time
  does something exactly when it is due, versions and the history grow by one, an update is accepted once.

The recorded events, and nothing else, lead to the state: at each kill the run goes on with what the journal gives back.
At the end, the run ends: by itself if nobody is there, and with all its versions once everybody behaves.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.closing import average_of
from fl_aggregator.round.machine import due, step
from fl_aggregator.round.phases import Aggregating, Buffering, Collecting, Finished
from tests.support.any_run import RUNS, RunMachine, flips, mostly, run_machine
from tests.support.buffering_promises import BufferingPromises

indices = st.integers(0, 7)


@st.composite
def run_settings(draw: st.DrawFn) -> dict[str, Any]:
    clients = draw(st.integers(1, 5))
    return {
        "mode": "async",
        "clients": clients,
        "concurrency": draw(st.integers(1, clients)),
        "buffer": draw(st.integers(1, min(3, clients))),
        "max_staleness": draw(st.integers(0, 3)),
        "rounds": draw(st.integers(1, 12)),
        "deadline": draw(st.sampled_from((15.0, 60.0))),
        "grace": draw(st.sampled_from((0.0, 5.0))),
        "wait": draw(st.sampled_from((100.0, 600.0))),
        "target": draw(st.none() | st.just("accuracy=0.7")),
        "holdout": draw(st.sampled_from((0.0, 0.2))),
        "evaluate_every": draw(st.none() | st.just(1)),
        "seed": draw(st.integers(0, 3)),
    }


class AnyAsynchronousRun(RunMachine):
    promises: BufferingPromises
    sent: list[on.UpdateMetadata]

    @initialize(
        settings=run_settings(), first_weights=mostly, gathered=mostly, evaluator=mostly, silent=flips
    )
    def begin(
        self, settings: dict[str, Any], first_weights: bool, gathered: bool, evaluator: bool, silent: bool
    ) -> None:
        self.sent = []
        self.open(settings, first_weights, gathered, evaluator, silent)

    def tell(self, what: str | on.Event) -> None:
        if not self.play.told:
            self.promises = BufferingPromises(self.state)
        before, steps = self.state, len(self.play.told)
        super().tell(what)
        for event, effects in self.play.told[steps:]:  # one at most: nothing follows by itself
            self.promises.check(before, event, self.state, effects)
            if isinstance(event, on.UpdateArrived):
                self.sent.append(event.update)

    def has_ticket(self, index: int) -> str:
        """One of the edges whose ticket is not answered: at work, offline, or over its time."""
        phase = self.state.phase
        assert isinstance(phase, Buffering)
        known = (*phase.tickets, *phase.away)
        return known[index % len(known)]

    # --- updates ----------------------------------------------------------------------------------------

    @precondition(lambda self: isinstance(self.state.phase, Collecting))
    @rule()
    def the_first_weights_are_made(self) -> None:
        phase = self.state.phase
        assert isinstance(phase, Collecting)
        self.tell(f"send {next(iter(phase.awaited), phase.cohort[0])}")
        self.finish_orders()

    @precondition(lambda self: _tickets(self))
    @rule(index=indices, times=st.integers(1, 2), newer=st.integers(0, 2))
    def a_ticket_is_answered(self, index: int, times: int, newer: int) -> None:
        """From the base of the ticket, or from a newer version that the edge found at the broker."""
        phase, client = self.state.phase, self.has_ticket(index)
        assert isinstance(phase, Buffering)
        ticket = phase.ticket_of(client)
        assert ticket is not None
        base = min(ticket.base.version + newer, self.state.version)
        for _ in range(times):
            self.tell(f"send {client} round={ticket.round} base=v{base} manifest={self.state.manifest}")

    @precondition(lambda self: _tickets(self))
    @rule(first=indices, most=st.integers(1, 5))
    def tickets_are_answered_well(self, first: int, most: int) -> None:
        for index in range(first, first + most):
            if _tickets(self):
                self.tell(f"send {self.has_ticket(index)} manifest={self.state.manifest}")
                self.finish_orders()

    @precondition(lambda self: _tickets(self))
    @rule(first=indices, most=st.integers(1, 5))
    def tickets_are_answered_before_a_version_is_made(self, first: int, most: int) -> None:
        """So the next buffer fills, too."""
        for index in range(first, first + most):
            if _tickets(self):
                self.tell(f"send {self.has_ticket(index)} manifest={self.state.manifest}")
                for order in [one for one in self.orders if isinstance(one, do.StoreUpdate)]:
                    self.interpret(index=self.orders.index(order))

    @precondition(lambda self: _tickets(self))
    @rule(
        index=indices,
        wrong=st.sampled_from(("base=v9", "base=none", "manifest=N", "examples=0", "examples=2000000")),
    )
    def a_ticket_is_answered_wrongly(self, index: int, wrong: str) -> None:
        self.tell(f"send {self.has_ticket(index)} {wrong}")

    @precondition(lambda self: self.sent)
    @rule(back=indices)
    def an_update_is_sent_again(self, back: int) -> None:
        """Its ticket may have ended long ago, or it may be too stale now."""
        update = self.sent[-1 - back % len(self.sent)]
        self.tell(on.UpdateArrived(now=self.play.now, update=update))

    @precondition(lambda self: _tickets(self))
    @rule(index=indices)
    def a_training_fails(self, index: int) -> None:
        phase, client = self.state.phase, self.has_ticket(index)
        assert isinstance(phase, Buffering)
        ticket = phase.ticket_of(client)
        assert ticket is not None
        self.tell(f"fail {client} round={ticket.round}")

    @precondition(lambda self: _tickets(self))
    @rule(index=indices, returns=flips)
    def an_edge_at_work_goes_offline(self, index: int, returns: bool) -> None:
        client = self.has_ticket(index)
        self.tell(f"lose {client}")
        if returns:
            self.tell(f"rejoin {client}")
            self.tell(f"load {client} manifest={self.state.manifest}")

    @precondition(lambda self: not isinstance(self.state.phase, Buffering))
    @rule()
    def all_edges_are_there(self) -> None:
        """So that most runs collect updates, and go on when a failed one is resumed."""
        if self.state.ended:
            self.the_aggregator_is_killed(lost=False)
        for client in map(str, range(self.state.settings.clients)):
            self.tell(f"rejoin {client}")
            self.tell(f"load {client} manifest={self.state.manifest or 'M'}")

    @precondition(lambda self: due(self.state) is not None)
    @rule()
    def time_passes_until_something_is_due(self) -> None:
        at = due(self.state)
        assert at is not None
        self.tell(f"wait {at - self.play.now!r}")

    # --- kills ------------------------------------------------------------------------------------------

    @rule(lost=st.sampled_from((False, False, False, True)))
    def the_aggregator_is_killed(self, lost: bool) -> None:
        """The journal gives the state back; what was ordered is lost, and a version is averaged again.

        ``lost``: an accepted update is not in the spool any more.
        """
        replayed = self.play.invariants.first
        for event in self.play.invariants.journal:
            replayed, _ = step(replayed, event)
        assert replayed == self.state, "the journal gives the state back"
        self.play.state = replayed
        if isinstance(replayed.phase, Finished):
            return
        self.orders.clear()
        self.tell("resume")
        phase = self.state.phase
        making = phase.making if isinstance(phase, Buffering) else phase
        if isinstance(making, Aggregating):
            self.orders.append(average_of(self.state, making.collected))
        held = [] if not isinstance(phase, Buffering) else [update.client for update in phase.updates]
        if lost and held:
            self.orders.clear()
            self.tell(f"forget {held[0]}")


def _tickets(machine: AnyAsynchronousRun) -> bool:
    phase = machine.state.phase
    return isinstance(phase, Buffering) and bool(phase.tickets or phase.away)


@pytest.mark.parametrize("runs", [RUNS, pytest.param(20 * RUNS, marks=pytest.mark.long)])
def test_any_asynchronous_run(runs: int) -> None:
    run_machine(AnyAsynchronousRun, 2 * runs, steps=60)
