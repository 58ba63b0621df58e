"""What an aggregator tries on an edge with a privacy budget: it never gets an update beyond it.

The edge is its session with its own ledger and saved update, started anew from its directory. The aggregator may say
anything: runs, incarnations, rounds and noise of its invention, and ask again and again.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from fl_edge.runtime.dispatcher import JobOwner, _event
from fl_edge.runtime.fleet import _restored
from fl_edge.session import effects, events
from fl_edge.session.machine import step
from fl_edge.session.privacy import Budget, Charge, ExampleNoise, LocalNoise, OwnPrivacy
from fl_edge.session.state import Session
from fl_edge.session.work import Training
from fl_edge.storage import update_store
from fl_edge.storage.privacy_ledger import PrivacyLedger
from fl_edge.workers.jobs import FailureOutcome
from fl_shared.privacy.gaussian_mechanism import epsilon_of
from fl_shared.protocol import messages as m
from fl_shared.tensors.sections import ModelSection
from tests.support.builders import finished_update
from tests.support.samples import MANIFEST
from tests.support.session_script import SessionScript, identity

NOISE = 4.0
BUDGET = Budget(2.0)
PRIVATE = OwnPrivacy(local=LocalNoise(NOISE, 1.0), budget=BUDGET)
ALLOWED = max(n for n in range(100) if epsilon_of(math.sqrt(n) / NOISE, BUDGET.delta) <= BUDGET.epsilon)
"""Updates that fit into the budget."""
assert 2 <= ALLOWED <= 20


class Killed(Exception):
    """The process of the edge has ended."""


class BudgetedEdge(SessionScript):
    """An edge whose directory outlives it. ``sent``: the digests of the updates that anybody has received."""

    def __init__(self, directory: Path, privacy: OwnPrivacy = PRIVATE) -> None:
        super().__init__(identity(privacy=privacy, roles=("train",)))
        self.directory, self.privacy = directory, privacy
        self.sent: list[str] = []
        self.messages: list[m.Message] = []
        self.trainings = 0
        self.left = math.inf
        """Effects that are still performed before the process is killed."""
        self.start()

    def start(self) -> None:
        self.left = math.inf
        self.ledger = PrivacyLedger(self.directory, "7")
        self.file = self.directory / update_store.FILE_NAME
        restored = _restored(self.file, "7", self.privacy, self.ledger)
        self.state = Session(
            identity(privacy=self.privacy, roles=("train",)),
            restored_update=restored,
            charged=self.ledger.charges,
        )
        self.do("connected s1")

    def happen(self, event: events.Event) -> tuple[effects.Effect, ...]:
        self.state, asked = step(self.state, event)
        for effect in asked:
            if self.left <= 0:
                raise Killed
            self.left -= 1
            self.perform(effect)
        return asked

    def perform(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Charge():
                self.ledger.charge(effect.run, effect.round, effect.digest, effect.charges)
                self.happen(events.Charged(self.now, effect.digest))
            case effects.SaveUpdate(pending=pending):
                update_store.write(self.file, "7", pending)
            case effects.DeleteUpdate():
                self.file.unlink(missing_ok=True)
            case effects.Send(message=message):
                self.messages.append(message)
                if isinstance(message, m.Update) and message.base is not None:
                    self.sent.append(message.digest)
            case _:
                pass

    def join(self, run: str = "R", incarnation: int = 1) -> None:
        """The aggregator claims to be this run, and admits the edge."""
        named = f"run={run} incarnation={incarnation}"
        self.do(f"aggregator online {run} {named}", f"admitted part=7/20 {named}")
        if isinstance(self.state, Session) and self.session.membership is not None:
            self.do(f"loaded {self.session.job - 1}", f"admitted part=7/20 {named}")

    def ask(self, number: int, run: str = "R", incarnation: int = 1, words: str = "cohort=7") -> None:
        """The aggregator selects the edge, which trains if it agrees; nothing is answered."""
        self.do(f"selected {number} {words} run={run} incarnation={incarnation}")
        job = self.session.job - 1
        self.do(f"fetched {job}")
        if isinstance(self.session.work, Training):
            self.trainings += 1
            data = self.trainings.to_bytes(4, "little") * 4
            made = finished_update(ModelSection("delta", MANIFEST, data), base="b" * 64)
            self.happen(events.Trained(self.now, job, made, charges=(Charge("edge", NOISE),)))

    def accept(self, number: int, run: str = "R", incarnation: int = 1) -> None:
        self.do(f"accepted {number} run={run} incarnation={incarnation} digest={self.sent[-1]}")

    def check(self) -> None:
        """The budget holds, and each update that anybody has is in the ledger once."""
        distinct = set(self.sent)
        assert epsilon_of(math.sqrt(len(distinct)) / NOISE, BUDGET.delta) <= BUDGET.epsilon
        written = PrivacyLedger(self.directory, "7")
        assert all(written.of(digest) for digest in distinct)
        assert sum(one.steps for one in written.charges) == len(written._digests)


@pytest.fixture
def edge(tmp_path: Path) -> BudgetedEdge:
    return BudgetedEdge(tmp_path)


@pytest.mark.parametrize("answers", [True, False])
def test_one_run_gets_no_more_than_the_budget(edge: BudgetedEdge, answers: bool) -> None:
    edge.join()
    for number in range(1, 30):
        edge.ask(number)
        if answers and edge.sent and edge.session.membership:
            edge.accept(number)
    assert len(set(edge.sent)) == ALLOWED
    edge.check()
    [*_, failed] = [one for one in edge.messages if isinstance(one, m.TrainingFailed)]
    assert failed.detail.startswith("its privacy budget is spent (ε ")
    assert " of 2; another update would make it " in failed.detail


def test_runs_that_are_opened_anew_get_no_more(edge: BudgetedEdge) -> None:
    for number in range(30):
        edge.do("lost", "connected s1")
        edge.join(f"R{number}")
        if edge.session.membership is not None:
            edge.ask(1, f"R{number}")
    assert len(set(edge.sent)) == ALLOWED
    edge.check()


def test_an_aggregator_that_forgets_or_starts_again_gets_no_more(edge: BudgetedEdge) -> None:
    """Later incarnations repeat rounds, and say that the newest one was never made."""
    for incarnation in range(1, 30):
        edge.join(incarnation=incarnation)
        if edge.session.membership is None:
            break
        edge.do(f"admitted part=7/20 incarnation={incarnation} newest_round=0")
        edge.ask(1, incarnation=incarnation)
        edge.ask(2, incarnation=incarnation)
        if edge.sent:
            edge.do(f"rejected 2 incarnation={incarnation} digest={edge.sent[-1]} late")
    edge.check()


def test_tickets_get_no_more(edge: BudgetedEdge) -> None:
    edge.join()
    for number in range(1, 30):
        edge.ask(number, words="work ticket")
        if edge.sent and edge.session.membership:
            edge.accept(number)
    assert len(set(edge.sent)) == ALLOWED
    edge.check()


def test_an_edge_that_is_started_again_knows_what_it_has_spent(edge: BudgetedEdge) -> None:
    for number in range(1, 30):
        edge.start()
        edge.join()
        if edge.session.membership is not None:
            edge.ask(number)
    assert len(set(edge.sent)) == ALLOWED
    edge.check()


def test_it_says_so_when_it_registers_and_is_not_selected_any_more(edge: BudgetedEdge) -> None:
    edge.join()
    for number in range(1, ALLOWED + 1):
        edge.ask(number)
        edge.accept(number)
    edge.do(f"result {ALLOWED}")
    unable = [one.unable for one in edge.messages if isinstance(one, m.Registration) and one.unable]
    assert len(unable) == 1
    assert "its privacy budget is spent" in unable[0]
    edge.start()
    edge.join("another")
    last = edge.messages[-1]
    assert isinstance(last, m.Registration)
    assert last.unable == unable[0]


def test_the_last_update_is_sent_until_it_is_answered(edge: BudgetedEdge) -> None:
    """Its cost is written down, so it must not be in vain."""
    edge.join()
    for number in range(1, ALLOWED):
        edge.ask(number)
        edge.accept(number)
    edge.ask(ALLOWED)
    last = edge.sent[-1]
    edge.start()
    edge.sent.clear()
    edge.join()
    assert edge.sent == [last]
    edge.accept(ALLOWED)
    edge.do(f"result {ALLOWED}")
    assert edge.session.membership is None
    edge.check()


@pytest.mark.parametrize("left", range(8))
def test_a_killed_edge_forgets_no_charge_and_charges_no_update_twice(edge: BudgetedEdge, left: int) -> None:
    """It is killed before each effect of a finished training, again and again, and asked for the round each time."""
    for number in range(1, 30):
        edge.start()
        edge.join()
        if edge.session.membership is None:
            break
        edge.left = left + 3  # two effects are those of the selection and the fetch
        with suppress(Killed):
            edge.ask(number % 3 + 1)
        edge.check()
    edge.start()
    edge.check()
    assert len(edge.ledger._digests) <= ALLOWED


REQUIRES = OwnPrivacy(least_noise=1.0)


@pytest.mark.parametrize(
    ("told", "least", "colluders", "trains"),
    [
        (None, 5, 1, False),
        (m.RoundPrivacy(mechanism="central", clip=1.0, noise=9.0), 5, 1, False),
        (m.RoundPrivacy(mechanism="distributed", clip=1.0, noise=0.9), 5, 1, False),
        (m.RoundPrivacy(mechanism="distributed", clip=1.0, noise=1.0), 5, 1, True),
        (m.RoundPrivacy(mechanism="distributed", clip=1.0, noise=9.0), 2, 2, False),
    ],
)
def test_noise_is_what_edges_add_and_no_word_of_the_aggregator(
    told: m.RoundPrivacy | None, least: int, colluders: int, trains: bool
) -> None:
    script = SessionScript(identity(privacy=REQUIRES, roles=("train",)))
    script.do("connected s1", "admitted part=7/20 masked", "loaded 0", "keys", "admitted part=7/20 masked")
    event = script.event(f"selected 1 cohort=7,8,9 masked least={least} colluders={colluders}")
    assert isinstance(event, events.SelectionSeen)
    done = script.happen(replace(event, selected=event.selected.model_copy(update={"privacy": told})))
    failed = [
        one.message.detail
        for one in done
        if isinstance(one, effects.Send) and isinstance(one.message, m.TrainingFailed)
    ]
    assert any(isinstance(one, effects.Fetch) for one in done) == trains
    assert all("(--require-noise)" in one for one in failed)
    assert len(failed) == (not trains)


def test_how_much_of_a_budget_for_examples_is_spent_is_not_told(tmp_path: Path) -> None:
    """It depends on how many examples the edge has, which it does not say (``--dp-sgd-tell`` does)."""
    private = OwnPrivacy(examples=ExampleNoise(1.0), budget=BUDGET)
    script = SessionScript(identity(privacy=private, roles=("train",)))
    script.do("connected s1", "admitted part=7/20", "loaded 0", "admitted part=7/20", "selected 1 cohort=7")
    script.do(f"fetched {script.session.job - 1}")
    training = script.session.work
    assert isinstance(training, Training)
    failure = FailureOutcome(
        "budget-spent", "its privacy budget is spent (ε 1.23 of 2; another would make it 2.34)"
    )
    done = list(script.happen(_event(JobOwner("7", training.job), training.job, failure, script.now)))
    for line in ("result 1", "selected 2 cohort=7", "result 2"):
        done += script.do(line)
    said = [one.message for one in done if isinstance(one, effects.Send)]
    assert any(isinstance(one, m.TrainingFailed) and "budget" in one.detail for one in said)
    assert not any("1.23" in repr(one) or "2.34" in repr(one) for one in said)
    assert any("1.23" in one.text for one in done if isinstance(one, effects.LogNotice)), "its user may know"
