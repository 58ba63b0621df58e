"""What an asynchronous run promises of every step (`fl_aggregator.round.buffering`)."""

from __future__ import annotations

from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Buffering, Finished, Ticket, buffering_of
from fl_aggregator.round.state import Run
from tests.support.versions import version_of


class BufferingPromises:
    """Follows one run. Each broken promise is an ``AssertionError``.

    - At most ``--concurrency`` edges are at work, and as many as can be: a place is free only if every edge that is
      there has had its turn in this round. Who is absent or over its time has no place.
    - The tickets at the broker are those that are not answered; the rounds of an edge's tickets grow.
    - A ticket begins from the newest version, and no ticket is issued while a version is made.
    - Nothing is late: a sound update for a ticket that is not answered goes into the buffer.
    - An update is folded at most once, into the round whose version it is in.
    - Its staleness is at most ``--max-staleness``, and is the number of versions between its base and its version.
    - A ticket ends as soon as its update could not count any more.
    - A version has exactly ``--buffer`` updates, each of another edge; a full buffer waits only for the version before.
    - The spool is empty when the run has finished.
    """

    def __init__(self, state: Run) -> None:
        settings = state.settings
        assert settings.concurrency is not None
        assert settings.buffer is not None
        assert settings.max_staleness is not None
        self.concurrency, self.buffer, self.cap = (
            settings.concurrency,
            settings.buffer,
            settings.max_staleness,
        )
        self.rounds: dict[str, int] = {}
        self.at_broker: dict[str, Ticket] = {}
        self.folded: dict[tuple[str, int], int] = {}
        self.spool: set[tuple[str, int]] = set()

    def check(self, before: Run, event: on.Event, after: Run, effects: tuple[do.Effect, ...]) -> None:
        """Checks one step."""
        if isinstance(event, on.UpdateStored):
            self._check_not_late(before, event.update, effects)
        for effect in effects:
            self._take(effect, after)
        phase = buffering_of(after.phase)
        known = {} if phase is None else {**phase.tickets, **phase.away}
        held = {name: (one.round, one.base) for name, one in self.at_broker.items()}
        assert held == {name: (one.round, one.base) for name, one in known.items()}, (
            "the tickets at the broker"
        )
        if phase is not None:
            self._check_phase(after, phase, event.now)
        if isinstance(after.phase, Finished):
            assert not self.spool, "the spool is empty at the end"

    def _check_not_late(self, before: Run, update: on.UpdateMetadata, effects: tuple[do.Effect, ...]) -> None:
        phase, ticket = before.phase, self.at_broker.get(update.client)
        if not isinstance(phase, Buffering) or ticket is None or ticket.round != update.round:
            return
        assert update.base is not None
        stale = self._newest(phase) + len(phase.updates) // self.buffer - version_of(update.base)
        folds = [effect for effect in effects if isinstance(effect, do.Fold)]
        if stale > self.cap:
            assert not folds, "an update that is too stale does not count"
        else:
            assert [fold.update.staleness for fold in folds] == [stale], "nothing is late"

    @staticmethod
    def _newest(phase: Buffering) -> int:
        """The newest version that is decided on."""
        return phase.bases[-1].version + (0 if phase.making is None else 1)

    def _take(self, effect: do.Effect, after: Run) -> None:
        match effect:
            case do.IssueTicket(client=client, ticket=ticket):
                held = self.at_broker.get(client)
                if held is None:
                    assert ticket.round > self.rounds.get(client, 0), "an edge's tickets grow"
                    assert ticket.base == after.model, "a ticket begins from the newest version"
                else:
                    assert (ticket.round, ticket.base) == (held.round, held.base), "one ticket an edge"
                self.rounds[client], self.at_broker[client] = ticket.round, ticket
            case do.WithdrawTicket(client=client, round=number):
                assert self.at_broker.pop(client).round == number, "it ends once"
            case do.Fold(update=update, round=number) if update.base is not None:
                key = (update.client, update.round)
                assert key not in self.folded, "folded at most once"
                assert 0 <= update.staleness <= self.cap
                self.folded[key] = number
                self.spool.add(key)
            case do.Average(round=number, version=version, base=base, contributors=contributors):
                if base is None:
                    return
                assert base == after.model
                assert version == base.version + 1
                assert len(contributors) == self.buffer, "exactly as many as a version needs"
                assert len({update.client for update in contributors}) == len(contributors), "an edge once"
                for update in contributors:
                    assert self.folded[update.client, update.round] == number, "folded into its version"
                    assert update.base is not None
                    assert update.staleness == version - 1 - version_of(update.base), "counted as applied"
            case do.CloseBuffer(updates=updates):
                for update in updates:
                    self.spool.remove((update.client, update.round))
            case do.SendReply(body=do.Reject(reason=reason, round=number)) if number > 0:
                assert reason != "late", "nothing is late"

    def _check_phase(self, after: Run, phase: Buffering, now: float) -> None:
        assert len(phase.tickets) <= self.concurrency, "at most so many at work"
        assert not phase.tickets.keys() & phase.away.keys()
        assert len({update.client for update in phase.updates}) == len(phase.updates)
        for ticket in (*phase.tickets.values(), *phase.away.values()):
            assert self._newest(phase) - ticket.base.version <= self.cap, (
                "a ticket that cannot count has ended"
            )
        if after.phase is not phase or after.paused is not None:
            return
        for client, ticket in phase.tickets.items():
            assert not after.roster.is_absent(client, now, after.settings.grace), f"{client} is absent"
            assert now < ticket.deadline, f"{client} is over its time"
        if phase.making is not None:
            return
        assert len(phase.updates) < self.buffer, "a full buffer waits only for the version before"
        if len(phase.tickets) < self.concurrency:
            for client in after.roster.eligible(after.manifest):
                had_its_turn = client in after.answered and after.answered[client].until >= phase.round
                assert client in phase.tickets or had_its_turn, f"{client} is idle"
