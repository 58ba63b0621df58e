"""Runs of very many registered edges, as states of the machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fl_aggregator.configuration.settings import parse_settings
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import step
from fl_aggregator.round.phases import Selecting
from fl_aggregator.round.roster import Client, Roster
from fl_aggregator.round.state import Run
from fl_shared.protocol.messages import ModelReference

MANIFEST, BASE = "a" * 64, ModelReference(version=3, digest="b" * 64)


def waiting(clients: int, per_round: int) -> Run:
    """A run of registered edges that may open round 4 after 9 s."""
    known = {
        str(number): Client(
            session=f"s{number}", device=f"d{number}", roles=("train",), encodings=("f32",), registered_at=0.0,
            partition=number, manifest=MANIFEST, examples=10,
        )
        for number in range(clients)
    }  # fmt: skip
    return Run(
        settings=parse_settings(clients=clients, per_round=per_round, rounds=9),
        phase=Selecting(round=4, since=0.0, not_before=9.0),
        roster=Roster(known),
        begun=True,
        model=BASE,
        manifest=MANIFEST,
        declared=(),
    )


def collecting(clients: int, per_round: int) -> Run:
    """A run whose round 4 is open. Edge 7 is selected."""
    state, _ = step(waiting(clients, per_round), on.TimePassed(now=9.0))
    phase: Any = state.phase
    first = phase.cohort[0]
    if "7" not in phase.cohort:
        awaited = phase.awaited.without(first)
        awaited = replace(awaited, absent_at=awaited.absent_at.with_value("7", None))
        names = tuple(first if name == "7" else name for name in phase.substitutes)
        phase = replace(phase, cohort=("7", *phase.cohort[1:]), substitutes=names, awaited=awaited)
    return replace(state, phase=phase)
