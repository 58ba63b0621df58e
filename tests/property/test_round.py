"""The round machine against anything that edges, the network and the clock may do to it (`tests.support.any_run`)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from fl_aggregator.round import events as on
from fl_aggregator.round.closing import average_of
from fl_aggregator.round.machine import step
from fl_aggregator.round.phases import Aggregating, Collecting, Failed, Finished, Stopped
from tests.support.any_run import RUNS, RunMachine, clients, flips, mostly, run_machine


@st.composite
def run_settings(draw: st.DrawFn) -> dict[str, Any]:
    clients = draw(st.integers(1, 4))
    per_round = draw(st.integers(1, clients))
    return {
        "clients": clients,
        "per_round": per_round,
        "over_select": draw(st.integers(0, clients - per_round)),
        "quorum": draw(st.none() | st.integers(1, per_round)),
        "rounds": draw(st.integers(1, 3)),
        "deadline": draw(st.sampled_from((15.0, 60.0))),
        "pace": draw(
            st.sampled_from(("fixed", "auto", "auto:quantile=0.5,factor=1.1,window=1,shortest=0.5"))
        ),
        "grace": draw(st.sampled_from((0.0, 5.0))),
        "wait": draw(st.sampled_from((20.0, 100.0))),
        "target": draw(st.none() | st.just("accuracy=0.7")),
        "holdout": draw(st.sampled_from((0.0, 0.2))),
        "evaluate_every": draw(st.integers(1, 2)),
        "seed": draw(st.integers(0, 3)),
    }


class AnyRun(RunMachine):
    @initialize(
        settings=run_settings(),
        first_weights=flips,
        gathered=mostly,
        evaluator=flips,
        silent=flips,
    )
    def begin(
        self, settings: dict[str, Any], first_weights: bool, gathered: bool, evaluator: bool, silent: bool
    ) -> None:
        self.open(settings, first_weights, gathered, evaluator, silent)

    # --- updates ----------------------------------------------------------------------------------------

    def selected(self, index: int) -> str:
        phase = self.state.phase
        assert isinstance(phase, Collecting)
        return phase.cohort[index % len(phase.cohort)]

    @precondition(lambda self: isinstance(self.state.phase, Collecting))
    @rule(index=st.integers(0, 3), times=st.integers(1, 2))
    def a_selected_edge_answers(self, index: int, times: int) -> None:
        client = self.selected(index)
        for _ in range(times):
            self.tell(f"send {client}")

    @precondition(lambda self: isinstance(self.state.phase, Collecting))
    @rule(
        index=st.integers(0, 3),
        wrong=st.sampled_from(
            (
                "base=v9",
                "base=none",
                "manifest=N",
                "examples=0",
                "examples=-3",
                "examples=2000000",
                "digest=d",
            )
        ),
    )
    def a_selected_edge_errs(self, index: int, wrong: str) -> None:
        self.tell(f"send {self.selected(index)} {wrong}")

    @rule(client=clients, back=st.integers(-1, 6))
    def anyone_answers_any_round(self, client: str, back: int) -> None:
        self.tell(f"send {client} round={max(0, self.play.round - back)}")

    @precondition(lambda self: isinstance(self.state.phase, Collecting))
    @rule(index=st.integers(0, 3))
    def a_selected_edge_fails(self, index: int) -> None:
        self.tell(f"fail {self.selected(index)}")

    @precondition(lambda self: isinstance(self.state.phase, Collecting))
    @rule(most=st.integers(1, 4))
    def some_selected_edges_answer_well(self, most: int) -> None:
        phase = self.state.phase
        assert isinstance(phase, Collecting)
        for client in tuple(phase.awaited)[:most]:
            self.tell(f"send {client} round={phase.round} manifest={self.state.manifest}")
            self.finish_orders()

    # --- the rest ---------------------------------------------------------------------------------------

    @rule(forgotten=st.integers(0, 4))
    def the_aggregator_is_started_again(self, forgotten: int) -> None:
        """What was ordered and not reported is lost with it; an average is made again."""
        phase = (
            self.state.phase.resume_phase
            if isinstance(self.state.phase, Stopped | Failed)
            else self.state.phase
        )
        if isinstance(phase, Finished):
            return
        self.orders.clear()
        if isinstance(phase, Aggregating):
            collected = phase.collected
            self.orders.append(average_of(self.state, collected))
        else:
            collected = phase  # type: ignore[assignment]
        self.tell("resume")
        held = collected.updates if isinstance(collected, Collecting) else {}
        if forgotten == 1 and held and self.state.phase == phase:
            self.orders.clear()
            clients = (min(held),)
            self.tell(on.UpdatesLost(now=self.play.now, round=collected.round, clients=clients))

    @invariant()
    def a_deadline_ends_the_round(self) -> None:
        """What the state would do at its deadline, without doing it: nobody needs to be lucky."""
        phase = self.state.phase
        if isinstance(phase, Collecting) and self.state.paused is None:
            now = self.play.now
            self.play.now = phase.deadline
            try:
                event = self.play.event("tick")
            finally:
                self.play.now = now
            assert event is not None
            after, _ = step(self.state, event)
            if isinstance(after.phase, Collecting):
                assert phase.base is None, "only first weights may be asked of the next edge"
                assert len(after.phase.cohort) == len(phase.cohort) + 1
                assert after.phase.round == phase.round


@pytest.mark.parametrize("runs", [RUNS, pytest.param(20 * RUNS, marks=pytest.mark.long)])
def test_any_run(runs: int) -> None:
    run_machine(AnyRun, runs)
