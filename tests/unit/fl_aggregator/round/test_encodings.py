"""Edges offer encodings, and each round names one (protocol, 4.8 and 5.12)."""

from __future__ import annotations

import pytest

from fl_aggregator.round import effects as do
from fl_shared.tensors.encodings.registry import ENCODINGS
from tests.support.encodings import Float16
from tests.support.round_playbook import Playbook


@pytest.fixture
def half_precision(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a second encoding."""
    monkeypatch.setitem(ENCODINGS, "f16", Float16())
    return "f16"


@pytest.mark.parametrize(
    ("offered", "lacking"), [("f32", "f16"), ("f16", "f32"), ("q8,f32", "f16"), ("q8", "f32")]
)
def test_4_8_a_training_edge_that_lacks_the_encoding_of_the_run_is_refused(
    half_precision: str, offered: str, lacking: str
) -> None:
    playbook = Playbook(clients=2, per_round=2, encoding=half_precision)
    offers = offered.replace(",", ", ")
    said = f"*encodings: the run needs {lacking}; this edge has {offers}*".replace(" ", "?")
    assert playbook >> "start" >> f"join 0 encodings={offered}" << f"refuse 0 lacks-ability {said}"
    assert playbook.state.roster["0"].unable
    assert playbook.state.roster.trainers() == ()


def test_4_8_an_edge_that_does_not_train_need_not_encode(half_precision: str) -> None:
    playbook = Playbook(clients=2, per_round=2, encoding=half_precision)
    assert playbook >> "start" >> "join p roles=predict encodings=f32" << "admit p part=-"
    assert playbook.state.roster["p"].encodings == ("f32",)


def test_5_12_round_0_is_f32_and_the_others_are_in_the_encoding_of_the_run(half_precision: str) -> None:
    playbook = Playbook(clients=2, per_round=2, encoding=half_precision)
    playbook.play("start", "join 0 encodings=f16,f32,q8", "join 1 encodings=f32,f16")
    playbook.play("load 0 encodings=f16,f32,q8", "load 1 encodings=f32,f16")
    assert playbook.state.roster["0"].encodings == ("f16", "f32", "q8")
    playbook.play(f"send {playbook.cohort[0]}")
    announced = [
        (effect.round, effect.encoding)
        for _, effects in playbook.told
        for effect in effects
        if isinstance(effect, do.AnnounceRound)
    ]
    assert announced == [(0, "f32"), (1, "f16")]
    playbook.invariants.check_replay(playbook.state)
