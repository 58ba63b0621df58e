"""Whatever a broker, an aggregator, workers and time do to an edge's session, in whatever order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from fl_edge.session import effects, events
from fl_edge.session.events import Event
from fl_edge.session.state import Stopped
from fl_edge.session.work import Answering, Reporting
from fl_shared.protocol import messages as m
from tests.support.samples import DATA
from tests.support.session_invariants import CheckedEdge
from tests.support.session_script import SessionScript, identity, update

RUNS = st.sampled_from(["R", "R", "R", "S"])
INCARNATIONS = st.integers(1, 3)
ROUNDS = st.integers(0, 4)
COHORTS = st.sampled_from(["7", "7,8", "8", "7,8,9", "8,9"])
PARTS = st.sampled_from(["7/20", "7/20", "8/20", ""])
ROLES = st.sampled_from(
    [("train", "predict"), ("train",), ("evaluate",), ("train", "evaluate"), ("predict",)]
)


class Edge(CheckedEdge):
    """All that may happen to an edge."""

    @rule(roles=ROLES, task=st.sampled_from([None, "digits"]), kept=st.sampled_from([None, 0, 1, 3]))
    @precondition(lambda self: self.sessions == 0)
    def begin(self, roles: tuple[m.ClientRole, ...], task: str | None, kept: int | None) -> None:
        self.script = SessionScript(identity(roles=roles, task=task, chunk_size=4000), kept=kept)
        self.on_disk = self.script.session.pending_update()

    @rule(largest=st.sampled_from([None, None, 600, 4_000, 10_000]))
    def connect(self, largest: int | None) -> None:
        self.sessions += 1
        self.online, self.largest = f"s{self.sessions}", largest
        self.happen(events.ConnectionEstablished(self.script.now, self.online, largest))

    @rule()
    def lose(self) -> None:
        self.online = None
        self.happen(events.ConnectionLost(self.script.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 35.0]))
    def wait(self, seconds: float) -> None:
        self.script.now += seconds
        self.happen(events.TimePassed(self.script.now))

    @rule(run=RUNS, incarnation=INCARNATIONS, part=PARTS, held=st.sampled_from(["", "", "0", "1", "2"]))
    def admit(self, run: str, incarnation: int, part: str, held: str) -> None:
        self.say(
            f"admitted run={run} incarnation={incarnation} {part and 'part=' + part} "
            f"{held and 'finished_round=' + held}"
        )

    @rule(session=st.sampled_from(["s0", "none"]))
    def admit_another_session(self, session: str) -> None:
        assert self.say(f"admitted part=7/20 session={session}") == ()

    @rule(
        state=st.sampled_from(["online", "offline"]),
        name=st.sampled_from(["a1", "a2"]),
        run=RUNS,
        incarnation=INCARNATIONS,
    )
    def see_aggregator(self, state: str, name: str, run: str, incarnation: int) -> None:
        self.say(f"aggregator {state} {name} run={run} incarnation={incarnation}")

    @precondition(
        lambda self: not isinstance(self.script.state, Stopped) and self.script.state.identity.trains
    )
    @rule(largest=st.sampled_from([None, 4_000]), incarnation=st.integers(1, 3))
    def come_to_an_offer(self, largest: int | None, incarnation: int) -> None:
        """A round that goes well until its update is offered: what is left to chance hardly ever gets there."""
        if self.online is None:
            self.connect(largest)
        number = 10 + self.last_job
        self.say(f"admitted part=7/20 incarnation={incarnation}")
        self.end_jobs_of(effects.Load)
        self.say(f"selected {number} incarnation={incarnation} limit=100")
        self.end_jobs_of(effects.Fetch)
        self.end_jobs_of(effects.Train)

    @precondition(
        lambda self: not isinstance(self.script.state, Stopped) and self.script.state.identity.trains
    )
    @rule(incarnation=st.integers(1, 3), number=st.integers(1, 4))
    def come_to_a_closing(self, incarnation: int, number: int) -> None:
        """A masked round that goes well until the edge is asked to sign, as above."""
        if self.online is None:
            self.connect(None)
        self.say(f"admitted part=7/20 incarnation={incarnation} masked")
        self.say("keys")
        self.end_jobs_of(effects.Load)
        self.say(f"selected {number} incarnation={incarnation} masked")
        self.say(f"closing {number} incarnation={incarnation}")

    @rule(
        what=st.sampled_from(["closing", "reveal"]),
        number=ROUNDS,
        run=RUNS,
        incarnation=INCARNATIONS,
        included=st.sampled_from(["7,8", "7,9"]),
        left=st.sampled_from([0, 40]),
    )
    def ask(self, what: str, number: int, run: str, incarnation: int, included: str, left: int) -> None:
        self.say(f"{what} {number} run={run} incarnation={incarnation} of={included} left={left}")

    @precondition(lambda self: not isinstance(self.script.state, Stopped))
    @rule(what=st.sampled_from(["keys", "signed", "opened", "declined another-set", "unmask cleared"]))
    def come_to_the_answer(self, what: str) -> None:
        asked = self.script.session.unmasking
        if what in ("keys", "unmask cleared") or (isinstance(asked, Answering) and asked.begun):
            self.say(what)

    def end_jobs_of(self, kind: type[effects.Effect]) -> None:
        for job, begun in list(self.jobs.items()):
            if isinstance(begun, kind):
                if kind is not effects.Fetch:
                    del self.jobs[job]
                ended = (
                    events.Fetched(self.script.now, job) if kind is effects.Fetch else self.ended(begun, job)
                )
                self.happen(ended)

    @rule(line=st.sampled_from(["offline s0", "online s9", "offline s1", "online s1", "cleared"]))
    def see_presence(self, line: str) -> None:
        self.say(f"presence {line}")

    @rule(
        number=ROUNDS,
        run=RUNS,
        incarnation=INCARNATIONS,
        cohort=COHORTS,
        work=st.booleans(),
        limit=st.sampled_from([500, 10**6]),
    )
    def select(self, number: int, run: str, incarnation: int, cohort: str, work: bool, limit: int) -> None:
        self.say(
            f"selected {number} run={run} incarnation={incarnation} cohort={cohort} limit={limit} "
            f"{'work' if work else ''}"
        )

    @rule(number=ROUNDS)
    def clear(self, number: int) -> None:
        self.say(f"cleared {number}")

    @rule()
    def clear_own(self) -> None:
        self.say("cleared work")

    @rule(number=ROUNDS, run=RUNS, incarnation=INCARNATIONS)
    def end_round(self, number: int, run: str, incarnation: int) -> None:
        self.say(f"result {number} run={run} incarnation={incarnation}")

    @rule(
        version=ROUNDS,
        run=RUNS,
        incarnation=INCARNATIONS,
        split=st.sampled_from(["", "evaluate=test", "evaluate=holdout"]),
    )
    def announce(self, version: int, run: str, incarnation: int, split: str) -> None:
        self.say(f"model {version} run={run} incarnation={incarnation} {split}")

    @rule(run=RUNS, number=ROUNDS, accepted=st.booleans(), right=st.booleans())
    def answer(self, run: str, number: int, accepted: bool, right: bool) -> None:
        """Perhaps to what is kept, perhaps to anything."""
        digest = update().digest
        work = self.script.state.work if not isinstance(self.script.state, Stopped) else None
        if right and isinstance(work, Reporting):
            number, run, digest = work.selected.round, work.selected.run, work.update.digest
            if self.online is not None:
                self.answered.add((run, number))
        reason = "accepted" if accepted else "rejected"
        self.say(f"{reason} {number} {'' if accepted else 'late'} run={run} digest={digest}")

    @rule(
        run=RUNS,
        incarnation=INCARNATIONS,
        number=ROUNDS,
        chunks=st.lists(st.integers(0, 4), min_size=1, max_size=5),
        right=st.sampled_from(["all", "all", "digest", "none"]),
    )
    def grant(self, run: str, incarnation: int, number: int, chunks: list[int], right: str) -> None:
        """Perhaps of what is offered, perhaps of anything; of chunks that there are, or not, or twice."""
        digest = update().digest
        work = self.script.state.work if not isinstance(self.script.state, Stopped) else None
        if right != "none" and isinstance(work, Reporting):
            digest = work.update.digest
            if right == "all":
                run, number = work.selected.run, work.selected.round
                incarnation = work.sent_to.incarnation if work.sent_to is not None else incarnation
        self.granted = (digest, number, tuple(chunks))
        self.say(
            f"grant {number} {','.join(map(str, chunks))} run={run} incarnation={incarnation} digest={digest}"
        )
        self.granted = None

    @precondition(lambda self: bool(self.jobs))
    @rule(choice=st.randoms(use_true_random=False), works=st.booleans(), users=st.booleans())
    def end_a_job(self, choice, works: bool, users: bool) -> None:  # type: ignore[no-untyped-def]
        job = choice.choice(sorted(self.jobs))
        begun = self.jobs[job]
        now = self.script.now
        event: Event
        if not works:
            del self.jobs[job]
            event = events.JobFailed(now, job, "it failed", user_error=users and choice.randrange(10) == 0)
        elif isinstance(begun, effects.Fetch):
            event = events.ModelOverdue(now) if choice.randrange(5) == 0 else events.Fetched(now, job)
        else:
            del self.jobs[job]
            event = self.ended(begun, job)
        self.happen(event)

    def ended(self, begun: effects.Effect, job: int) -> Event:
        match begun:
            case effects.Load():
                return self.script.event(f"loaded {job} holdout={job % 2 * 10}")
            case effects.Train(selected=selected):
                base = None if selected.base is None else selected.base.digest
                data = job.to_bytes(4, "little") + DATA[4:] * 1000
                return events.Trained(self.script.now, job, update(base=base, data=data))
            case _:
                return self.script.event(f"evaluated {job}")

    @rule(
        job=st.integers(0, 40), what=st.sampled_from(["loaded", "fetched", "trained", "evaluated", "failed"])
    )
    def end_a_job_of_nobody(self, job: int, what: str) -> None:
        if job not in self.jobs:
            assert self.say(f"{what} {job}") == ()

    @precondition(lambda self: self.sessions > 3)
    @rule(line=st.sampled_from(["stop", "refused id-in-use", "admitted task=cifar10"]))
    def end(self, line: str) -> None:
        self.say(line)


TestSession = Edge.TestCase
TestSession.settings = settings(max_examples=30, stateful_step_count=60, deadline=None)
