"""Masked rounds: what their sums measure, who is left out of them, and what watchers see."""

from __future__ import annotations

import pytest

from fl_aggregator.monitoring.views import status
from fl_aggregator.monitoring.views.edge_states import edge_states_of
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Agreeing, agreeing_of
from fl_shared.protocol.envelope import EnvelopeSource
from tests.support.round_playbook import Playbook, round_done, training
from tests.support.round_text import describe_phase

SCOPE = EnvelopeSource(run="r", incarnation=1)


def masked(**settings: object) -> Playbook:
    usual = {"clients": 5, "per_round": 5, "rounds": 9, "masked": True, "unmask_wait": 30}
    return training(**{**usual, **settings})  # type: ignore[arg-type]


def closed(playbook: Playbook) -> Playbook:
    return round_done(playbook)


def unmasked(playbook: Playbook) -> Playbook:
    """The open round closes, and is unmasked by the first four."""
    closed(playbook)
    return playbook.play(*(f"sign {n}" for n in range(4)), *(f"open {n}" for n in range(4)))


def test_the_target_is_met_by_the_means_of_the_next_round() -> None:
    playbook = masked(target="accuracy=0.5")
    unmasked(playbook)  # measures version 0, which is none
    assert describe_phase(playbook.state).startswith("collecting 2")
    unmasked(playbook)
    assert describe_phase(playbook.state) == "finished target"
    assert playbook.state.version == 2
    assert playbook.state.metrics["version"] == 1
    assert (playbook.state.best, playbook.state.best_split) == (0.5, "holdout")


def test_the_test_split_is_measured_as_ever_and_counts_more() -> None:
    playbook = masked(rounds=2)
    playbook.play("join e roles=evaluate")
    unmasked(playbook)
    playbook.play("evaluate e 1 0.875")
    unmasked(playbook)
    lines = [e.summary for _, effects in playbook.told for e in effects if isinstance(e, do.WriteHistory)]
    assert [(one.split, one.metrics["accuracy"]) for one in lines] == [("test", 0.875)]
    playbook.play("evaluate e 2 0.75")
    assert playbook.state.phase.name == "finished", "no edge is asked for its holdout"


def test_without_a_holdout_nothing_is_waited_for() -> None:
    playbook = masked(holdout=0.0)
    unmasked(playbook)
    lines = [e.summary for _, effects in playbook.told for e in effects if isinstance(e, do.WriteHistory)]
    assert [one.round for one in lines] == [1]


def test_who_has_spoilt_two_sums_is_left_out_for_the_rest_of_the_run() -> None:
    playbook = masked(clients=6, per_round=5, over_select=1)
    for _ in range(2):
        playbook.play("spoil 3")
        closed(playbook)
        playbook.play(*(f"sign {n}" for n in range(5)), *(f"open {n}" for n in range(5)))
    assert playbook.state.misled == {"3": 2}
    assert "3" not in playbook.cohort
    playbook >> "rejoin 3" << 'refuse 3 unable "its shares were wrong in 2 masked rounds" to=3.2'
    assert playbook


def test_an_update_without_a_body_is_not_awaited_in_closed_rounds() -> None:
    playbook = closed(masked(over_select=0))
    phase = playbook.state.phase
    assert isinstance(phase, Agreeing)
    assert phase.collected.included == {str(n): f"body of {n}@1" for n in range(5)}


def test_what_watchers_see_of_signatures_and_shares() -> None:
    playbook = closed(masked())
    playbook.play("sign 4", "lose 2")
    assert status.progress(playbook.state) == (1, 4)
    assert status.awaited_clients(playbook.state) == ("0", "1", "2", "3")
    assert status.seconds_left(playbook.state, playbook.now + 10) == 20.0
    message = status.status_message(playbook.state, SCOPE, playbook.now)
    assert (message.phase, message.have, message.need) == ("agreeing", 1, 4)
    missing = status.missing_message(playbook.state, SCOPE, playbook.now + 1)
    assert missing is not None
    assert {name: one.state for name, one in missing.clients.items()} == {
        "0": "online", "1": "online", "2": "offline", "3": "online"
    }  # fmt: skip
    playbook.play("sign 0", "sign 1", "sign 3", "open 3")
    message = status.status_message(playbook.state, SCOPE, playbook.now)
    assert (message.phase, message.have, message.need) == ("unmasking", 1, 4)
    assert {state for _, state, _ in edge_states_of(playbook.state, ())} == {"in"}


def test_a_decline_after_the_shares_changes_nothing() -> None:
    playbook = closed(masked())
    playbook.play("sign 0", "sign 1", "sign 2", "sign 3", "open 0")
    before = playbook.state
    playbook.play("decline 0 policy")
    assert playbook.state == before
    playbook.play("decline 1 policy")
    agreeing = agreeing_of(playbook.state.phase)
    assert agreeing is not None
    assert agreeing.declined == {"1": "policy: no"}
    result = playbook.play("decline 2 policy").result(1)
    assert "too many members declined: 1 (policy: no), 2 (policy: no)" in result


@pytest.mark.parametrize(
    "steps",
    [
        ("spoil", *(f"open {n}" for n in range(4)), "decline 4 policy"),
        ("spoil", "decline 4 policy", *(f"open {n}" for n in range(4))),
        ("spoil", "spoil", *(f"open {n}" for n in range(5))),
        ("spoil short=2", *(f"open {n}" for n in range(4))),
    ],
)
def test_a_sum_that_no_member_is_left_to_open_is_not_waited_for(steps: tuple[str, ...]) -> None:
    playbook = closed(masked()).play(*(f"sign {n}" for n in range(4)))
    playbook.play(*steps[:-1])
    assert playbook.round == 1
    result = playbook.play(steps[-1]).result(1)
    assert "the sum could not be unmasked: wrong shares; no other member is left to open it" in result
    assert ("4 (policy: no)" in result) == any("decline" in step for step in steps)


def test_a_sum_that_others_may_open_is_waited_for() -> None:
    playbook = closed(masked(clients=7, per_round=7)).play(*(f"sign {n}" for n in range(5)))
    playbook.play("spoil short=2", *(f"open {n}" for n in range(6)))
    assert playbook.state.phase.name == "unmasking", "those of two more are needed, and one has come"
    playbook.play("open 6")
    assert playbook.state.version == 1


def test_a_decline_while_the_sum_is_made_is_not_forgotten() -> None:
    playbook = closed(masked()).play(*(f"sign {n}" for n in range(4)), *(f"open {n}" for n in range(3)))
    playbook.auto, now = False, playbook.now
    playbook.handle(on.SharesKept(now=now, client="3", session="3.1", round=1, digest="d"))
    assert playbook.state.phase.name == "aggregating"
    playbook.handle(on.Declined(now=now, client="4", round=1, reason="policy", detail="no"))
    assert playbook.state.phase.name == "aggregating", "what is opened may be enough"
    playbook.handle(on.UnmaskFailed(now=now, round=1, client=None, detail="wrong shares"))
    assert "no other member is left to open it: 4 (policy: no)" in playbook.result(1)


def test_time_starts_again_when_nothing_was_heard() -> None:
    playbook = closed(masked())
    playbook.play("wait 25", "reconnect", "wait 25")
    assert isinstance(playbook.state.phase, Agreeing), "the aggregator was away"
    playbook.play("wait 5")
    assert playbook.round == 2


def test_a_lost_update_ends_the_round_in_each_phase() -> None:
    for steps in ((), ("sign 0",), ("sign 0", "sign 1", "sign 2", "sign 3", "open 0")):
        playbook = closed(masked()).play(*steps)
        playbook.handle(on.UpdatesLost(now=playbook.now, round=1, clients=("3",)))
        assert "abandoned" in playbook.result(1)
        assert "reason=accepted updates were lost" in playbook.result(1)
