"""An edge that hides its data counts what an update costs before it sends it, and says nothing else of its data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fl_edge.session.charging import NO_NOISE
from fl_edge.session.effects import Charge, Effect, SaveUpdate, Send, Train
from fl_edge.session.privacy import ExampleNoise, OwnPrivacy
from fl_edge.session.work import Idle
from fl_shared.protocol import messages as m
from tests.support.session_script import CHARGES, SessionScript, identity
from tests.support.session_steps import sent
from tests.support.session_text import shown

PRIVATE = OwnPrivacy(ExampleNoise(1.1))
READY = ("connected s1", "admitted part=7/20", "loaded 0 examples=40", "admitted part=7/20")
TRAINED = "trained 1 costs before=0.5 after=0.75"


def script(privacy: OwnPrivacy = PRIVATE) -> SessionScript:
    script = SessionScript(identity(privacy=privacy))
    script.do(*READY)
    return script


def trained(privacy: OwnPrivacy = PRIVATE) -> tuple[SessionScript, tuple[Effect, ...]]:
    found = script(privacy)
    return found, found.do("selected 1", "fetched 1", TRAINED)


def test_an_update_is_charged_before_it_is_sent() -> None:
    edge, effects = trained()
    assert [type(one) for one in effects if isinstance(one, Charge | SaveUpdate | Send)] == [
        SaveUpdate,
        Charge,
    ]
    assert edge.texts("charged")[0].startswith("send fl/updates/7: update")
    assert edge.session.charged == CHARGES


@pytest.mark.parametrize("event", ["time 100", "lost", "result 1", "model 1", "overdue", "connected s2"])
def test_nothing_is_sent_before_it_is_charged(event: str) -> None:
    edge, _ = trained()
    assert not any(isinstance(one, m.Update | m.Offer) for one in sent(edge.do(event)))


def test_after_a_reconnection_it_is_sent_again_and_not_charged_again() -> None:
    edge, _ = trained()
    edge.do("charged", "lost")
    effects = edge.do("connected s2", "admitted part=7/20 session=s2")
    assert any(isinstance(one, m.Update) for one in sent(effects))
    assert not any(isinstance(one, Charge) for one in effects)
    assert edge.session.charged == CHARGES


def test_an_update_whose_charge_is_not_written_down_is_not_sent() -> None:
    edge, _ = trained()
    [failed] = sent(edge.do("charged the disk is full"))
    assert isinstance(failed, m.TrainingFailed)
    assert failed.detail == "the disk is full"
    assert edge.session.charged == ()


def test_the_charge_of_another_update_sends_nothing() -> None:
    edge, _ = trained()
    assert sent(edge.do(f"charged digest={'e' * 64}")) == []
    edge.do("charged", "accepted 1")
    assert isinstance(edge.session.work, Idle)
    assert edge.do("charged") == ()


def test_the_next_training_knows_what_was_spent() -> None:
    edge, _ = trained()
    edge.do("charged", "accepted 1")
    edge.do("selected 2")
    [train] = [one for one in edge.do("fetched 2") if isinstance(one, Train)]
    assert train.spent == CHARGES
    edge.do("trained 2 costs", "charged")
    assert edge.session.charged == (replace(CHARGES[0], steps=40),)


@pytest.mark.parametrize("tells", [False, True])
def test_it_says_nothing_of_its_data(tells: bool) -> None:
    edge, _ = trained(replace(PRIVATE, tells=tells))
    [update] = sent(edge.do("charged"))
    assert isinstance(update, m.Update)
    told = {"epsilon": 0.25} if tells else None
    assert (update.examples, update.steps, update.seconds) == (1, 0, 0.0)
    assert update.metrics == m.UpdateMetrics(train=told)
    edge.do("accepted 1")
    [evaluation] = sent(edge.do("model 1 evaluate=holdout"))
    assert isinstance(evaluation, m.Evaluation)
    assert (evaluation.examples, evaluation.loss, evaluation.metrics) == (0, 0.0, {})


def test_it_registers_with_one_example() -> None:
    edge = SessionScript(identity(privacy=PRIVATE))
    edge.do("connected s1", "admitted part=7/20")
    [registration] = sent(edge.do("loaded 0 examples=40"))
    assert isinstance(registration, m.Registration)
    assert registration.examples == 1


@pytest.mark.parametrize(
    ("privacy", "line"),
    [(PRIVATE, "trained 1"), (OwnPrivacy(ExampleNoise(1.2)), "trained 1 costs")],
    ids=["none", "less than asked for"],
)
def test_an_update_without_the_noise_is_not_sent(privacy: OwnPrivacy, line: str) -> None:
    edge = script(privacy)
    edge.do("selected 1", "fetched 1")
    effects = edge.do(line)
    [failed] = sent(effects)
    assert isinstance(failed, m.TrainingFailed)
    assert failed.detail == NO_NOISE
    assert not any(isinstance(one, Charge | SaveUpdate) for one in effects)


def test_first_weights_cost_nothing() -> None:
    edge = script()
    edge.do("selected 0")
    assert [shown(one) for one in edge.do("trained 1 base=none") if isinstance(one, Charge)] == []
    assert edge.session.work != Idle()
