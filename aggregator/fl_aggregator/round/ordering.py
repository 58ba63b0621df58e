"""The rounds of a region, which the run above orders: they are opened, and end, when it says so. Pure.

A round that is ordered twice is one round. Its sum is made once it has closed, and its phase stays ``Aggregating``
until the run above has made a version with it (``ModelCreated``) or without it (``OrderEnded``).
"""

from __future__ import annotations

import math

from fl_aggregator.round import effects as do
from fl_aggregator.round import evaluation
from fl_aggregator.round import events as on
from fl_aggregator.round.closing import abandon
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.phases import Aggregating, Collecting, Order, Selecting, collected_round
from fl_aggregator.round.state import Run
from fl_aggregator.round.summary import not_ready_detail
from fl_shared.system.frozen import replace


def ordered(state: Run, event: on.RoundOrdered) -> Transition:
    """Takes an order, in place of any other one. For the open round it says only how much time there is left."""
    deadline = event.now + event.seconds
    phase = state.phase
    if isinstance(phase, Aggregating) and phase.round == event.round:
        return state, ()  # its sum is being made, or has been sent
    if isinstance(phase, Collecting) and (phase.round, phase.base) == (event.round, event.base):
        return replace(state, phase=replace(phase, deadline=min(phase.deadline, deadline))), ()
    state, effects = _end(state, event.now, f"round {event.round} was ordered")
    if event.base != state.model:
        detail = "the version that the round begins with has not come"
        return state, (*effects, do.DeclineOrder(event.round, detail))
    order = Order(
        round=event.round,
        base=event.base,
        training=event.training,
        correction=event.correction,
        deadline=deadline,
    )
    selecting = Selecting(round=event.round, since=event.now, not_before=event.now)
    return replace(state, order=order, phase=selecting), effects


def ended(state: Run, event: on.OrderEnded) -> Transition:
    """Forgets an order, and abandons its round if that is open or waits for its version."""
    if state.order is not None and state.order.round == event.round:
        return replace(state, order=None), ()
    collected = collected_round(state.phase)
    if collected is None or collected.round != event.round:
        return state, ()
    return _end(state, event.now, event.reason)


def received(state: Run, event: on.VersionReceived) -> Transition:
    """Goes on from a version that was made without this region, and publishes it."""
    if state.model is not None and event.model.version <= state.version:
        return state, ()
    state, effects = _end(state, event.now, f"the run above has gone on to version {event.model.version}")
    number = max(0, state.phase.round - 1) if isinstance(state.phase, Selecting) else 0
    state = replace(state, model=event.model, manifest=event.manifest, served=event.model)
    state, split = evaluation.request_evaluation(state, event.model, event.now)
    return state, (*effects, do.PublishModel(number, event.model, split))


def _end(state: Run, now: float, reason: str) -> Transition:
    collected = collected_round(state.phase)
    if collected is None:
        return replace(state, order=None), ()
    return abandon(state, collected, now, reason)


def decide(state: Run, now: float, ready: int, minimum: int) -> Transition | None:
    """Returns null if the order can be carried out now; else waits for edges until its deadline, and declines it."""
    order = state.order
    if order is None:
        return state, ()
    if ready >= minimum:
        return None
    if now < order.deadline:
        return state, ()
    detail = not_ready_detail(state, ready, minimum)
    return replace(state, order=None), (do.DeclineOrder(order.round, detail),)


def due(state: Run, ready: int, minimum: int) -> float:
    """Returns the run time at which `decide` does anything, if only time passes; ∞ for never."""
    if state.order is None:
        return math.inf
    return -math.inf if ready >= minimum else state.order.deadline
