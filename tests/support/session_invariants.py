"""What must hold in every session of an edge, after every event and for every effect."""

from __future__ import annotations

import math

from hypothesis.stateful import RuleBasedStateMachine, invariant

from fl_edge.session import effects, events, machine
from fl_edge.session.events import Event
from fl_edge.session.state import (
    AwaitingPartition,
    Confirming,
    LoadedPartition,
    LoadingPartition,
    Registering,
    Stopped,
)
from fl_edge.session.work import Fetching, PendingUpdate, Reporting, Training
from fl_shared.protocol import messages as m
from fl_shared.protocol.codec import encode
from fl_shared.transfer import upload
from tests.support.session_script import SessionScript, identity


class CheckedEdge(RuleBasedStateMachine):
    """An edge's session, checked. ``jobs``: those that were started and have not ended, with what started them last."""

    def __init__(self) -> None:
        super().__init__()
        self.script = SessionScript(identity(chunk_size=4000))  # an update has three of them
        self.online: str | None = None
        self.largest: int | None = None
        self.sessions = 0
        self.jobs: dict[int, effects.Effect] = {}
        self.last_job = -1
        self.last_seq = -1
        self.answered: set[tuple[str, int]] = set()
        self.last_sent: dict[tuple[str, int, str, str, int], float] = {}
        self.granted: tuple[str, int, tuple[int, ...]] | None = None
        self.on_disk: PendingUpdate | None = None

    def say(self, line: str) -> tuple[effects.Effect, ...]:
        return self.happen(self.script.event(line))

    def happen(self, event: Event) -> tuple[effects.Effect, ...]:
        was_over = isinstance(self.script.state, Stopped)
        done = self.script.happen(event)
        assert not (was_over and done), "it acts after its end"
        for effect in done:
            self.check(effect)
        return done

    def check(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Load(job=job):
                self.started(job, effect)
            case effects.Fetch(job=job, timeout=patience):
                assert patience > 0
                self.started(job, effect)
            case effects.Train(job=job, selected=selected, partition=partition):
                if selected.base is None:
                    self.started(job, effect)
                assert isinstance(self.jobs[job], effects.Fetch | effects.Train)
                self.jobs[job] = effect
                member = self.script.session.membership
                assert member is not None
                assert (selected.run, partition) == (member.run, member.partition)
                assert (selected.run, selected.round) not in self.answered, (
                    "it trains again what was answered"
                )
            case effects.Evaluate(job=job):
                assert isinstance(self.jobs[job], effects.Fetch)
                self.jobs[job] = effect
            case effects.Cancel(job=job):
                del self.jobs[job]
            case effects.SaveUpdate(pending=kept):
                self.on_disk = kept
            case effects.DeleteUpdate():
                assert self.on_disk is not None
                self.on_disk = None
            case effects.Send(message=message):
                assert self.online is not None, "it speaks while there is no connection"
                self.sent(message)
            case effects.SendChunks():
                assert self.online is not None, "it speaks while there is no connection"
                self.sent_chunks(effect)
            case _:
                pass

    def sent_chunks(self, effect: effects.SendChunks) -> None:
        """Only in answer to a grant, what that asks for, each once, in its order, and as it was offered."""
        assert self.granted is not None, "nobody has granted anything"
        digest, number, asked = self.granted
        assert effect.chunks
        assert list(effect.chunks) == [i for i in dict.fromkeys(asked) if i in effect.chunks]
        sender, member = effect.sender, self.script.session.membership
        assert (effect.update.digest, sender.round) == (digest, number)
        assert member is not None
        assert (sender.run, sender.incarnation, sender.session) == (
            member.run,
            member.incarnation,
            self.online,
        )
        key = (sender.run, sender.incarnation, sender.session, digest, number)
        assert key in self.last_sent, "it was not offered in this session"
        assert (sender.run, number) not in self.answered
        assert effect.first_seq > self.last_seq
        self.last_seq = effect.first_seq + len(effect.chunks) - 1
        for index in effect.chunks:
            part = upload.chunk_message(sender, effect.first_seq, effect.update, effect.chunk_size, index)
            assert self.largest is None or len(encode(part)) + upload.PACKET_OVERHEAD <= self.largest

    def started(self, job: int, effect: effects.Effect) -> None:
        assert job > self.last_job, "job numbers are used once"
        self.last_job = job
        self.jobs[job] = effect

    def sent(self, message: m.Message) -> None:
        assert getattr(message, "session", self.online) == self.online
        seq = getattr(message, "seq", None)
        if seq is not None:
            assert seq > self.last_seq
            self.last_seq = seq
        of_rounds = m.Update | m.Offer | m.TrainingFailed | m.Delayed | m.Evaluation
        if isinstance(message, of_rounds | m.Agreed | m.Opened | m.Declined):
            member = self.script.session.membership
            assert member is not None
            assert (message.run, message.incarnation) == (member.run, member.incarnation), (
                "it obeys whom it was admitted by"
            )
        if isinstance(message, m.Update | m.Offer):
            assert self.largest is None or len(encode(message)) + upload.PACKET_OVERHEAD <= self.largest
            assert (message.run, message.round) not in self.answered, "it repeats what was answered"
            key = (message.run, message.incarnation, message.session, message.digest, message.round)
            before = self.last_sent.get(key)
            assert before is None or self.script.now - before >= 5, "it repeats itself too soon"
            self.last_sent[key] = self.script.now

    @invariant()
    def one_job_of_each_kind(self) -> None:
        state = self.script.state
        if isinstance(state, Stopped):
            assert not self.jobs, "a job outlives its edge"
            return
        phases = [state.partition_state, state.work, state.evaluation]
        known = {
            p.job
            for p in phases
            if isinstance(p, LoadingPartition | Fetching | Training) or hasattr(p, "job")
        }
        assert known == set(self.jobs), "every job is known, and none is waited for that does not run"

    @invariant()
    def what_is_finished_and_not_answered_outlives_it(self) -> None:
        state = self.script.state
        if isinstance(state, Stopped):
            return
        kept = self.on_disk
        if isinstance(state.work, Reporting):
            assert kept == PendingUpdate(state.work.selected, state.work.update)
        elif state.membership is not None:
            assert kept is None
        assert kept is None or (kept.selected.run, kept.selected.round) not in self.answered

    @invariant()
    def time_is_asked_for(self) -> None:
        state, due = self.script.state, machine.due(self.script.state)
        if not isinstance(state, Stopped) and isinstance(
            state.registration, Registering | AwaitingPartition | Confirming
        ):
            assert due is not None
            assert due <= self.script.now + 30, "it gives up registering"

    @invariant()
    def time_does_something_when_it_is_due_and_nothing_before(self) -> None:
        state, due = self.script.state, machine.due(self.script.state)
        last = self.script.now + 1e6 if due is None else math.nextafter(due, -math.inf)
        assert machine.step(state, events.TimePassed(last)) == (state, ()), (
            f"due at {due}, but it acts at {last}"
        )
        if due is not None:
            after, done = machine.step(state, events.TimePassed(due))
            assert done, f"due at {due}, but it does nothing"
            later = machine.due(after)
            assert later is None or later > due, "it is due again at once"

    @invariant()
    def work_is_for_the_own_run(self) -> None:
        state = self.script.state
        if not isinstance(state, Stopped) and hasattr(state.work, "selected"):
            assert state.membership is not None
            assert state.work.selected.run == state.membership.run
            if isinstance(state.work, Training | Fetching):
                assert isinstance(state.partition_state, LoadedPartition | LoadingPartition)
