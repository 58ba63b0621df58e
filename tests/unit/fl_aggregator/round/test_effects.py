"""The table of effects says what the interpreter does: every effect has a row, a thread, and its answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.effects import EFFECT_SPECS
from fl_aggregator.round.state import Run
from tests.support.fuzz.aggregator_harness import AggregatorHarness


class Recorder:
    """What a real interpreter does with each effect: whether it asks the worker, and which events come of it."""

    def __init__(self, harness: AggregatorHarness) -> None:
        self.performed: set[type[do.Effect]] = set()
        self.queued: set[type[do.Effect]] = set()
        self.answers: defaultdict[type[do.Effect], set[type[on.Event]]] = defaultdict(set)
        self._now: type[do.Effect] | None = None
        interpreter: Any = harness.aggregator._interpreter
        self._perform, interpreter.perform = interpreter.perform, self.perform
        self._post, interpreter._add_event = interpreter._add_event, self.post
        self._submit, interpreter.worker._submit = interpreter.worker._submit, self.run

    def perform(self, effect: do.Effect, state: Run) -> None:
        self._now = type(effect)
        self.performed.add(self._now)
        self._perform(effect, state)
        self._now = None

    def post(self, event: on.Event) -> None:
        assert self._now is not None
        self.answers[self._now].add(type(event))
        self._post(event)

    def run(self, work: Callable[..., Any], *arguments: Any) -> None:
        effect = self._now
        assert effect is not None, "only effects ask the worker"
        self.queued.add(effect)

        def recorded(*arguments: Any) -> Any:
            done = work(*arguments)
            if done is not None and done.event is not None:
                self.answers[effect].add(type(done.event))
            return done

        self._submit(recorded, *arguments)


def test_every_effect_has_a_row() -> None:
    assert set(EFFECT_SPECS) == set(get_args(do.Effect))
    assert all(row.on_disk for row in EFFECT_SPECS.values())


def test_the_interpreter_does_what_the_table_says(tmp_path: Path) -> None:
    harness = AggregatorHarness(tmp_path / "run", seed=5)
    recorder = Recorder(harness)
    try:
        for number in range(8):  # every fifth version is evaluated
            phase = harness.begin_round()
            seeds = harness.seeds(phase)
            for seed in seeds if number % 2 else reversed(seeds):  # good updates first, or corrupted ones
                harness.take(seed.topic, seed.payload)
            for _ in range(100):
                topic, payload, retain = harness.noise(phase, seeds)
                harness.take(topic, payload, retain=retain)
            harness.finish_round()
    finally:
        harness.close()
    # Of asynchronous runs, of regions, of masked rounds, of secret cohorts, after the last version, and to an operator.
    untouched = {do.IssueTicket, do.WithdrawTicket, do.CloseBuffer, do.Personalize, do.DeclineOrder}
    untouched |= {do.Draw, do.PublishClosing, do.PublishReveal, do.KeepShares, do.Answer}
    assert recorder.performed == set(EFFECT_SPECS) - {do.EndRun} - untouched
    assert recorder.queued == {k for k, row in EFFECT_SPECS.items() if row.thread != "loop"} - untouched
    for kind, found in recorder.answers.items():
        assert found <= set(EFFECT_SPECS[kind].resulting_events), kind
    for kind in (do.StoreUpdate, do.Average):
        assert recorder.answers[kind] == set(EFFECT_SPECS[kind].resulting_events) - {on.UnmaskFailed}, kind
