"""Edges say what they can do in training, and are refused if the run needs more (protocol, 4.11)."""

from __future__ import annotations

import pytest

from tests.support.round_playbook import Playbook


def needs_two() -> Playbook:
    return Playbook(clients=2, per_round=2, correct=("prox:mu=0.1",), clip_gradients=1.0)


@pytest.mark.parametrize(
    ("has", "said"),
    [("", "the?run?needs?prox;?this?edge?has?none"),
     ("scaffold", "the?run?needs?prox;?this?edge?has?scaffold"),
     ("prox,logit-adjustment", "the?run?needs?clip-gradients;?this?edge?has?prox,?logit-adjustment")],
)  # fmt: skip
def test_4_11_a_training_edge_that_lacks_an_ability_is_refused(has: str, said: str) -> None:
    playbook = needs_two()
    assert playbook >> "start" >> f"join 0 abilities={has}" << f"refuse 0 lacks-ability {said}"
    assert playbook.state.roster.trainers() == ()


def test_4_11_one_that_has_them_takes_part_unless_its_task_lacks_one() -> None:
    playbook = needs_two()
    playbook.play("start", "join 0 abilities=clip-gradients,prox")
    assert playbook.state.roster.trainers() == ("0",)
    assert playbook >> "load 0 abilities=clip-gradients" << "refuse 0 lacks-ability *needs?prox*"


def test_4_11_an_edge_that_does_not_train_needs_no_ability() -> None:
    playbook = needs_two()
    assert playbook >> "start" >> "join p roles=predict" << "admit p part=-"


def test_4_11_a_run_in_bf16_says_what_an_edge_needs_for_it() -> None:
    playbook = Playbook(clients=2, per_round=2, precision="bf16")
    assert playbook >> "start" >> "join 0 abilities=bf16" << "admit 0 part=0"
    assert playbook >> "join 1 abilities=prox" << "refuse 1 lacks-ability *multiplies?bf16?numbers?itself*"
