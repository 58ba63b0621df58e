"""Asynchronous runs in random worlds, in virtual time: edges hang, vanish, return, fail, and repeat themselves.

Whatever they do, the promises of `fl_aggregator.round.buffering` hold, and the journal gives the state back.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import due, step
from fl_aggregator.round.phases import Buffering, Failed, Finished, Stopped
from fl_aggregator.round.snapshot import Snapshot
from fl_aggregator.round.state import Run, new_run
from fl_aggregator.storage.journal import snapshot_line
from fl_shared.protocol.messages import ModelReference
from tests.support.buffering_promises import BufferingPromises
from tests.support.versions import digest_of

WORLDS = 300
AT_ONCE = 50


class World:
    """One run with edges that behave as chance wills; each step is checked."""

    def __init__(self, seed: int) -> None:
        self.chance = r = Random(seed)
        clients = r.randint(1, 12)
        self.settings = Settings.model_validate(
            {
                "mode": "async", "clients": clients, "buffer": r.randint(1, min(5, clients)), "seed": seed,
                "concurrency": r.randint(1, min(8, clients)), "max_staleness": r.randint(0, 6),
                "rounds": r.randint(1, 15), "deadline": r.choice([5.0, 50.0]),
                "grace": r.choice([0.0, 2.0]), "wait": 400.0, "holdout": 0.0,
            }
        )  # fmt: skip
        self.first = new_run(self.settings, ModelReference(version=0, digest=digest_of(0)), "M")
        self.state = self.first
        self.journal: list[on.Event] = []
        self.queue: list[tuple[float, int, on.Event]] = []
        self.order = itertools.count()
        self.promises = BufferingPromises(self.first)
        self.versions = -1
        self.sessions = Counter[str]()
        self.put(0.0, on.Started(now=0.0))
        for client in map(str, range(clients)):
            self.put(r.random(), self.ready(client))

    def put(self, at: float, event: on.Event) -> None:
        heapq.heappush(self.queue, (at, next(self.order), replace(event, now=at)))

    def ready(self, client: str) -> on.Event:
        self.sessions[client] += 1
        return on.Registered(
            now=0.0, client=client, session=f"s{self.sessions[client]}", device=client, roles=("train",),
            encodings=("f32",), abilities=("tickets",), manifest="M", examples=10,
        )  # fmt: skip

    def run(self, events: int = 4000) -> Run:
        """Returns the state at the end, or after so many events."""
        for _ in range(events):
            at, next_due = self.queue[0][0] if self.queue else math.inf, due(self.state)
            if next_due is not None and next_due <= at:
                event: on.Event = on.TimePassed(now=next_due)
            elif self.queue:
                event = heapq.heappop(self.queue)[2]
            else:
                break
            before = self.state
            self.state, effects = step(before, event)
            if self.state != before:
                self.journal.append(event)
            if isinstance(event, on.TimePassed):
                assert effects, "time that is due does something"
            self.check(before, event, effects)
            for effect in effects:
                self.follow(effect, event.now)
            phase = self.state.phase
            if isinstance(event, on.Resumed) and isinstance(phase, Buffering) and phase.making is not None:
                collected = phase.making.collected
                made = on.ModelCreated(
                    now=0.0, round=collected.round, digest=digest_of(collected.version), manifest="M"
                )
                self.put(event.now + 0.1, made)  # as a resume averages again
            if self.state.ended and not isinstance(self.state.phase, Stopped):
                break
        return self.state

    def check(self, before: Run, event: on.Event, effects: tuple[do.Effect, ...]) -> None:
        self.promises.check(before, event, self.state, effects)
        for effect in effects:
            if isinstance(effect, do.PublishModel):
                assert effect.model.version == self.versions + 1
                self.versions += 1

    def follow(self, effect: do.Effect, now: float) -> None:
        r = self.chance
        match effect:
            case do.IssueTicket(client=client, ticket=ticket):
                if r.random() < 0.1:
                    return  # it hangs
                end = now + r.expovariate(1 / 4)
                update = on.UpdateMetadata(
                    client=client, session=f"s{self.sessions[client]}", round=ticket.round, base=ticket.base.digest,
                    digest=f"{client}@{ticket.round}", manifest="M", examples=10, steps=1, size=4,
                )  # fmt: skip
                kind = r.random()
                if kind < 0.2:
                    lost = on.EdgeLost(now=0.0, client=client, session=f"s{self.sessions[client]}")
                    back = end + r.random() * 20
                    self.put(end, lost)
                    self.put(back, self.ready(client))
                    self.put(
                        back + r.random() * 20, on.UpdateArrived(now=0.0, update=update)
                    )  # it takes it up again
                elif kind < 0.25:
                    self.put(
                        end,
                        on.TrainingFailureReported(now=0.0, client=client, round=ticket.round, detail="no"),
                    )
                elif kind < 0.3:
                    self.put(end, on.UpdateArrived(now=0.0, update=replace(update, examples=0)))
                else:
                    for _ in range(r.choice([1, 1, 2])):
                        self.put(end, on.UpdateArrived(now=0.0, update=update))
            case do.StoreUpdate(update=update):
                self.put(now + r.random() / 10, on.UpdateStored(now=0.0, update=update))
            case do.Average(round=number, version=version):
                made = on.ModelCreated(now=0.0, round=number, digest=digest_of(version), manifest="M")
                self.put(now + r.random(), made)
                if r.random() < 0.05:
                    self.put(now, on.StopRequested(now=0.0, reason="test"))
                    self.put(now + 0.01, on.Resumed(now=0.0, incarnation=2))
                    for client in map(str, range(self.settings.clients)):
                        self.put(now + r.random(), self.ready(client))
                elif r.random() < 0.02:
                    self.put(now + 2.0, on.UpdatesLost(now=0.0, round=number, clients=("0",)))
            case _:
                pass


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(AT_ONCE, WORLDS, AT_ONCE))]
)
def test_random_worlds_keep_the_promises(first: int) -> None:
    finished = 0
    for seed in range(first, first + AT_ONCE):
        world = World(seed)
        state = world.run()
        again = Snapshot(world.first)
        for event in world.journal:
            after, effects = step(again.state, event)
            again.add(event.now, after, effects)
        assert again.state == state, f"world {seed}: the journal gives the state back"
        fields = json.loads(snapshot_line(again))["snapshot"]
        assert Snapshot.from_fields(fields, world.settings) == again, f"world {seed}: so does a snapshot"
        assert isinstance(state.phase, Finished | Failed), f"world {seed}: the run ends"
        finished += isinstance(state.phase, Finished)
        if isinstance(state.phase, Failed):
            assert f"no update came for {world.settings.wait:.0f} s" in state.phase.detail
    assert finished >= 35
