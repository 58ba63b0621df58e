"""What must be true after every step of the round machine in playbooks, traces and Hypothesis tests."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.awaited import Awaited
from fl_aggregator.round.machine import due, step
from fl_aggregator.round.phases import (
    Aggregating,
    Agreeing,
    Buffering,
    Collecting,
    Finished,
    Selecting,
    Stopped,
    Unmasking,
)
from fl_aggregator.round.roster import Roster
from fl_aggregator.round.snapshot import Snapshot
from fl_aggregator.round.state import Run
from fl_aggregator.server.resume import ended_rounds
from fl_aggregator.storage.journal import snapshot_line


class RoundInvariants:
    """Records what the machine orders and checks it. Each violation is an ``AssertionError``."""

    def __init__(self, state: Run) -> None:
        self.first = state
        self.journal: list[on.Event] = []
        self.open_round: int | None = None
        self.last_round = 0
        self.averaged = False
        self.averages: set[int] = set()
        self.cohort: tuple[str, ...] = ()
        self.folded: dict[str, on.UpdateMetadata] = {}
        self.accepted: set[tuple[str, int, str]] = set()
        self.closings: dict[int, Mapping[str, str]] = {}
        self.results: list[int] = []
        self.written: list[int] = []
        self.ended = False

    def check(self, before: Run, event: on.Event, after: Run, effects: tuple[do.Effect, ...]) -> None:
        """Checks one step, and that it is the same when it is taken again."""
        assert step(before, event) == (after, effects), "the same input, another output"
        self.check_step(before, event, after, effects)

    def check_step(self, before: Run, event: on.Event, after: Run, effects: tuple[do.Effect, ...]) -> None:
        """Checks one step. Effects are checked in the order in which the interpreter performs them."""
        records = [effect for effect in effects if isinstance(effect, do.Record)]
        assert records == ([do.Record(event)] if before != after else []), "recorded exactly when changed"
        assert not records or effects[0] is records[0], "recorded first"
        if self.ended and isinstance(event, on.Resumed) and not isinstance(before.phase, Finished):
            self.ended = False
            # Their lines are written again: they had the state at the time when the run was stopped.
            again = {summary.round for summary in before.pending_summaries}
            self.written = [number for number in self.written if number not in again]
        if self.ended:
            assert before == after, "nothing changes after the end"
            assert all(isinstance(effect, do.SendReply | do.Answer) for effect in effects), (
                "after the end only answers"
            )
        self.journal += [record.event for record in records]
        for effect in effects:
            self._take(effect, before, event)
        if after is before:  # nothing was due: a step does what is due, whatever the event
            at = due(after)
            assert at is None or event.now < at, "it is due already"
        else:
            self._check_state(before, event, after)
            self._check_due(event.now, after)
        assert self.ended == after.ended
        awaited = {evaluation.model for evaluation in after.evaluations}
        written = [effect.summary.model for effect in effects if isinstance(effect, do.WriteHistory)]
        stopped = isinstance(after.phase, Stopped)
        assert stopped or not any(model in awaited for model in written), "a line waits for the evaluation"

    def check_replay(self, state: Run) -> None:
        """Checks that the recorded events, and nothing else, lead to the state.

        So do those after a commit, from the snapshot that was written then.
        """
        whole, compacted = Snapshot(self.first), Snapshot(self.first)
        written: set[int] = set()
        for event in self.journal:
            for snapshot in (whole, compacted):
                after, effects = step(snapshot.state, event)
                snapshot.add(event.now, after, effects)
            written |= {effect.summary.round for effect in effects if isinstance(effect, do.WriteHistory)}
            if isinstance(event, on.ModelCreated):
                compacted = _written_and_read(compacted)
        assert whole.state == state
        assert compacted == whole == _written_and_read(whole)
        ended, pending = ended_rounds(state)
        assert written - pending == set(range(1, ended + 1)) - pending
        assert all(1 <= number <= ended for number in pending)

    # --- effects ----------------------------------------------------------------------------------------

    def _take(self, effect: do.Effect, before: Run, event: on.Event) -> None:
        match effect:
            case do.SendReply(client=client, session=session, body=body):
                asked = _asker(event)
                known = before.roster.get(client)
                told = (client, session) == asked or (known is not None and known.session == session)
                assert told, "an answer goes to the session that asked, or to one that was waiting for news"
                self._check_answer(client, body)
            case do.AnnounceRound(round=number, cohort=cohort):
                if self.open_round is None:
                    paused = before.paused is not None and not isinstance(event, on.UnpauseRequested)
                    assert not paused, "no round opens in a pause"
                    assert number == self.last_round + 1 or self.last_round == number == 0
                    if isinstance(before.phase, Selecting):
                        assert event.now >= before.phase.not_before, "opened before its time"
                    self.open_round = self.last_round = number
                    self.averaged, self.cohort, self.folded = False, (), {}
                elif before.settings.masked and before.model is not None:
                    raise AssertionError("a masked round never gets substitutes")
                assert number == self.open_round, "never two rounds open"
                assert cohort[: len(self.cohort)] == self.cohort != cohort, "a cohort only grows"
                assert len(set(cohort)) == len(cohort)
                self.cohort = cohort
            case do.IssueTicket(ticket=ticket):
                self.last_round = self.open_round = max(self.last_round, ticket.round)
            case do.Fold(update=update) if before.settings.mode == "async" and update.base is not None:
                pass  # see tests.support.buffering_promises
            case do.Fold(update=update):
                assert update.round == self.open_round
                assert not self.averaged
                assert update.client in self.cohort, "folded from outside of the cohort"
                assert update.client not in self.folded, "folded twice"
                self.folded[update.client] = update
            case do.PublishClosing(round=number, included=included):
                assert number == self.open_round
                assert number not in self.closings, "one set a round, for ever"
                self.closings[number] = included
                assert {name: update.body for name, update in self.folded.items()} == included
                self._check_count(before, len(included))
            case do.PublishReveal(round=number, included=included):
                assert included == self.closings[number]
            case do.Average(holders=(_, *_), round=number) if self.averaged:
                assert number == self.open_round, "with the shares of more members"
            case do.Average(round=number, base=base) if before.settings.mode == "async" and base is not None:
                self.averages.add(number)
            case do.CloseBuffer(round=number):
                self.open_round = None
            case do.Average(round=number, version=version, base=base, contributors=contributors):
                assert number == self.open_round
                assert not self.averaged, "averaged once"
                self.averaged = True
                self.averages.add(number)
                assert {update.client: update for update in contributors} == self.folded
                assert [u.client for u in contributors] == sorted(self.folded)
                assert base == before.model
                assert version == (0 if base is None else base.version + 1), "versions grow by one"
                self._check_count(before, len(contributors))
            case do.WithdrawRound(round=number):
                # A buffer may be abandoned before any edge got a ticket in its round.
                assert number == self.open_round or isinstance(before.phase, Buffering)
                self.open_round = None
            case do.PublishResult(summary=summary):
                assert summary.round not in self.written, "the line in the history is final"
                if summary.round not in self.results:
                    collects_on = isinstance(before.phase, Buffering)
                    assert collects_on or summary.round == self.open_round, "before it is withdrawn"
                    self.results.append(summary.round)
                assert set(summary.missing) | set(summary.participants) <= set(summary.cohort)
                assert not set(summary.missing) & set(summary.participants)
            case do.WriteHistory(summary=summary):
                self.written.append(summary.round)
                assert summary.round in self.results
                assert all(a < b for a, b in pairwise(self.written)), "in the order of the rounds, each once"
            case do.EndRun():
                assert not self.ended
                self.ended = True
                assert self.written == [number for number in self.results if number > 0], (
                    "every round has its line"
                )
            case _:
                pass

    def _check_answer(self, client: str, body: do.Admit | do.Refuse | do.Accept | do.Reject) -> None:
        match body:
            case do.Accept(round=number, digest=digest):
                self.accepted.add((client, number, digest))
            case do.Reject(round=number, digest=str(digest), reason=reason) if number >= self.last_round - 1:
                if reason == "stale-round":
                    return  # of an edge that has had a later ticket
                assert (client, number, digest) not in self.accepted, "accepted twice, or not at all"
            case _:
                pass

    @staticmethod
    def _check_count(before: Run, contributors: int) -> None:
        settings = before.settings
        if before.model is None:
            assert contributors == 1
        else:
            assert settings.effective_quorum <= contributors <= settings.per_round

    # --- states -----------------------------------------------------------------------------------------

    @staticmethod
    def _check_due(now: float, after: Run) -> None:
        """Time does nothing until it is due, and then it does something: nobody asks in vain, or again and again."""
        at = due(after)
        assert at is None or now < at < math.inf, "it is due already"
        last = now + 1e6 if at is None else math.nextafter(at, now)
        if after.paused is not None:
            last = now  # no time passes in a pause
        assert step(after, on.TimePassed(now=last)) == (after, ()), f"due at {at}, but it acts at {last}"
        if at is not None:
            assert step(after, on.TimePassed(now=at)) != (after, ()), f"due at {at}, but it does nothing"

    @staticmethod
    def _check_roster(after: Run) -> None:
        counted = Roster(after.roster.clients)
        assert (after.roster._census, after.roster._partitions) == (counted._census, counted._partitions)
        parts = Counter(c.partition for c in after.roster.clients.values() if c.partition is not None)
        assert all(n == 1 and 0 <= part < after.settings.clients for part, n in parts.items()), (
            "a part, an edge"
        )

    def _check_state(self, before: Run, event: on.Event, after: Run) -> None:
        phase = after.phase
        if after.roster is not before.roster:
            self._check_roster(after)
        if after.model != before.model:
            assert isinstance(event, on.ModelCreated), "only an average makes a model"
            assert after.model is not None
            assert after.model.version == (0 if before.model is None else before.model.version + 1)
            assert event.digest == after.model.digest
            assert event.round in self.averages
        elif isinstance(before.phase, Collecting | Aggregating) and phase != before.phase:
            assert after.model is before.model or after.model == before.model
        if isinstance(phase, Collecting):
            assert self.open_round == phase.round
            assert event.now < phase.deadline, "a round ends by its deadline"
            assert phase.cohort == self.cohort
            assert not set(phase.cohort) & set(phase.substitutes)
            assert set(phase.updates) == set(self.folded)
            assert len(phase.updates) < phase.target <= phase.selection_size
            assert phase.quorum <= phase.target
            assert phase.base == after.model
            awaited = [n for n in phase.cohort if n not in phase.updates and n not in phase.dropped]
            assert phase.awaited == Awaited.of(awaited, after.roster, after.settings.grace)
            check_pace(phase, after)
            if phase.masking is not None:
                assert phase.masking.keys.keys() == set(phase.cohort)
                assert not phase.substitutes
                assert phase.quorum == phase.masking.least
        elif isinstance(phase, Aggregating):
            assert self.open_round == phase.round
            assert self.averaged
        elif isinstance(phase, Agreeing | Unmasking):
            assert self.open_round == phase.round
            assert event.now < phase.deadline
            assert phase.collected.included == self.closings[phase.round]
            agreeing = phase if isinstance(phase, Agreeing) else phase.agreeing
            enough = len(agreeing.signatures) >= agreeing.masking.threshold
            assert enough == isinstance(phase, Unmasking), "only a set with signatures enough is opened"
            if isinstance(phase, Unmasking):
                assert agreeing.masking.threshold <= phase.needed <= len(agreeing.masking.keys)
                assert len(phase.opened) < phase.needed
        elif not after.ended and not isinstance(phase, Buffering):
            assert self.open_round is None


def check_pace(phase: Collecting, state: Run) -> None:
    """A round is within the bounds of its options, whatever the edges took before."""
    settings, pace = state.settings, state.settings.parsed_pace
    allowed, extra = phase.deadline - phase.opened, phase.selection_size - phase.target
    if pace is None or phase.base is None:
        assert not state.response_times
        assert allowed == pytest.approx(settings.deadline) or phase.base is None
        return
    assert min(settings.deadline, pace.shortest) - 1e-6 <= allowed <= settings.deadline + 1e-6
    assert 0 <= extra <= min(max(settings.over_select, settings.per_round), settings.clients - phase.target)
    assert len(state.response_times) <= pace.window


def _written_and_read(snapshot: Snapshot) -> Snapshot:
    fields = json.loads(snapshot_line(snapshot))["snapshot"]
    return Snapshot.from_fields(fields, snapshot.state.settings)


def _asker(event: on.Event) -> tuple[str, str] | None:
    match event:
        case on.Registered() | on.UpdateInvalid():
            return event.client, event.session
        case (
            on.UpdateOffered(update=update) | on.UpdateArrived(update=update) | on.UpdateStored(update=update)
        ):
            return update.client, update.session
        case _:
            return None
