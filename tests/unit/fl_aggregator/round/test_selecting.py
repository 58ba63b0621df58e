"""How a run begins, and where its first weights come from; `docs/protocol.md`, 4.4 and 5.3."""

from __future__ import annotations

import pytest

from fl_aggregator.round.phases import Failed, Selecting
from fl_aggregator.round.selecting import LOADING_TIMEOUT, permutation
from tests.support.round_playbook import Playbook, gathered, training

# --- gathering --------------------------------------------------------------------------------------------


def test_a_run_begins_once_all_clients_have_loaded_their_parts() -> None:
    """4.4: "From then on it may be selected"; 5.3: round 0 has a cohort of one."""
    playbook = Playbook(clients=2, per_round=1, seed=1)
    first = permutation(("0", "1"), 1, 0)[0]
    assert (
        playbook
        >> "start"
        >> "join 0"
        << "admit 0 part=0"
        >> "join 1"
        << "admit 1 part=1"
        >> "load 1"
        << "admit 1 part=1"
        >> "wait 10"
        >> "load 0"
        << "admit 0 part=0"
        << f"announce 0 base=- cohort={first} until=610"
    )


def test_after_the_wait_the_quorum_will_do() -> None:
    """`--wait`: with fewer than `--clients` the run begins once it has passed, and waits for no one loading."""
    playbook = Playbook(clients=4, per_round=4, quorum=2, wait=100)
    playbook.play("start", "join 0", "load 0", "join 1", "load 1")
    assert playbook >> "wait 99.5" >> "wait 0.5" << "announce 0"


def test_edges_still_loading_when_the_wait_is_over_get_a_minute_more() -> None:
    playbook = Playbook(clients=4, per_round=2, quorum=1, wait=100)
    playbook.play("start", "join 0", "load 0", "join 1")
    assert playbook >> "wait 100" >> f"wait {LOADING_TIMEOUT - 1}" >> "wait 1" << "announce 0 cohort=0"


def test_all_have_loaded_but_one_has_no_data_so_nobody_else_is_waited_for() -> None:
    playbook = Playbook(clients=3, per_round=2, quorum=2)
    playbook.play("start", "join 0", "load 0", "join 1", "load 1", "join 2")
    assert playbook >> "load 2 examples=0" << "admit 2" << "announce 0"
    assert "2" not in playbook.cohort + playbook.substitutes


def test_too_few_edges_fail_the_run_and_are_named() -> None:
    """Issue 2, item 4: "then fails saying for whom"."""
    playbook = Playbook(clients=5, per_round=4, quorum=3, wait=100)
    playbook.play("start", "join 0", "load 0", "join 1", "load 1", "lose 1", "join 3", "load 3 examples=0")
    assert playbook >> "wait 100" << "end"
    failed = playbook.state.phase
    assert isinstance(failed, Failed)
    assert failed.reason == "too-few-edges"
    assert failed.detail == (
        "1 of at least 3 edges were ready after 100 s (--wait); offline: 1; not ready: 3; no edge for partition: 2, 4"
    )


def test_edges_that_declined_are_named_with_their_reason() -> None:
    playbook = Playbook(clients=3, per_round=2, quorum=2, wait=100)
    playbook.play("start", "join a unable=no-task", "join b unable=no-task", "join c", "load c", "wait 100")
    failed = playbook.state.phase
    assert isinstance(failed, Failed)
    assert failed.detail == (
        "1 of at least 2 edges were ready after 100 s (--wait); do not take part: a, b (no-task)"
    )


def test_a_run_whose_edges_are_all_here_and_all_decline_fails_at_once() -> None:
    playbook = Playbook(clients=2, per_round=2, quorum=1, wait=100)
    playbook.play("start", "join a unable=no-task", "join b", "lose b", "join c unable=no-data")
    assert isinstance(playbook.state.phase, Selecting), "b may return"
    assert playbook >> "join b unable=no-data" << 'refuse b unable "no-data"' << "end"
    failed = playbook.state.phase
    assert isinstance(failed, Failed)
    assert failed.reason == "too-few-edges"
    assert failed.detail == "all 3 edges decline: a (no-task), b, c (no-data)"


def test_an_edge_that_has_declined_and_left_may_come_back_mended() -> None:
    playbook = Playbook(clients=2, per_round=2, quorum=1, wait=100)
    playbook.play("start", "join a unable=no-data", "lose a", "join b unable=no-data")
    assert isinstance(playbook.state.phase, Selecting)
    playbook.play("join a", "load a", "wait 100")
    assert not playbook.state.ended


def test_a_failure_for_many_names_the_first_ten() -> None:
    playbook = Playbook(clients=20, per_round=10, wait=1.5).play("start")
    playbook.play("wait 2")
    assert isinstance(playbook.state.phase, Failed)
    assert playbook.state.phase.detail == (
        "0 of at least 5 edges were ready after 1.5 s (--wait); "
        "no edge for partition: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10 more"
    )


def test_a_later_round_waits_for_the_quorum_and_fails_for_lack_of_it() -> None:
    playbook = training(clients=3, per_round=3, quorum=2, wait=100, grace=0, rounds=5, holdout=0)
    playbook.play(*(f"lose {n}" for n in ("0", "1")))
    playbook.play("send 2", "wait 1")
    assert isinstance(playbook.state.phase, Selecting)
    since = playbook.state.phase.since
    playbook.play(f"wait {since + 99.5 - playbook.now}")
    assert isinstance(playbook.state.phase, Selecting)
    assert playbook >> "wait 1" << "end"
    assert isinstance(playbook.state.phase, Failed)
    assert "; offline: 0, 1" in playbook.state.phase.detail


def test_a_later_round_opens_with_what_is_there_if_that_is_the_quorum() -> None:
    playbook = training(clients=4, per_round=4, quorum=2, grace=0, holdout=0)
    playbook.play("lose 0", "lose 1")
    assert (
        playbook
        >> "send 2"
        << "keep"
        << "accept"
        << "fold"
        >> "send 3"
        << "keep"
        << "accept"
        << "fold"
        << ("average 1 of=2@1,3@1")
        << "publish v1"
        << "result 1 committed 0=offline* 1=offline*"
        << "withdraw 1"
        << ("history 1")
        << "announce 2"
    )
    assert playbook.collecting.target == 2
    assert set(playbook.cohort) == {"2", "3"}


# --- first weights ----------------------------------------------------------------------------------------


def test_round_0_makes_version_0_out_of_one_update_without_a_base() -> None:
    """5.3: "Its update has `base` null and carries whole weights with their arrays, which become version 0"."""
    playbook = gathered(clients=2, per_round=2)
    (first,) = playbook.cohort
    assert (
        playbook
        >> f"send {first} base=v0"
        << f"reject {first} {first}@0 wrong-base *none"
        << "announce 0 base=- *,*"
    )
    second = playbook.cohort[1]
    assert (
        playbook
        >> f"send {second}"
        << f"keep {second}@0"
        << f"accept {second}"
        << f"fold {second}@0"
        << f"average 0 base=- of={second}@0 version=0"
        << "publish v0 round=0 evaluate=-"
        << f"result 0 committed v0 by={second}"
        << "withdraw 0"
        << "announce 1 base=v0"
    )
    assert not playbook.invariants.written, "round 0 is not counted, and has no line in the history"


@pytest.mark.parametrize("how", ["fail {}", "unusable {} not-finite", "send {} manifest=N"])
def test_round_0_asks_the_next_edge_when_one_fails(how: str) -> None:
    """5.3: "If that edge fails or is lost, another is called, in the same round"."""
    playbook = gathered(clients=3, per_round=2)
    first, second = playbook.cohort[0], playbook.substitutes[0]
    playbook.play("sleep 5", how.format(first))
    assert playbook.cohort == (first, second)
    assert playbook.round == 0
    assert playbook.collecting.deadline == 605, "who is asked next has the whole time"


def test_round_0_asks_the_next_edge_when_one_is_lost() -> None:
    """5.3, after `--grace`."""
    playbook = gathered(clients=3, per_round=2, grace=5)
    first, second = playbook.cohort[0], playbook.substitutes[0]
    assert playbook >> f"lose {first}" >> "wait 4.9" >> "wait 0.2" << f"announce 0 cohort={first},{second}"


def test_round_0_asks_the_next_edge_at_the_deadline_and_takes_whoever_is_first() -> None:
    playbook = gathered(clients=2, per_round=2, deadline=60)
    first, second = playbook.cohort[0], playbook.substitutes[0]
    assert playbook >> "wait 59.5" >> "wait 0.5" << f"announce 0 cohort={first},{second} until=120"
    playbook.play(f"send {first}")
    assert playbook.state.version == 0
    assert playbook.round == 1


def test_round_0_does_not_wait_again_for_who_had_its_time() -> None:
    playbook = gathered(clients=3, per_round=2, deadline=60, grace=0)
    first, (second, third) = playbook.cohort[0], playbook.substitutes
    assert (
        playbook
        >> "wait 60"
        << f"announce 0 cohort={first},{second} until=120"
        >> f"lose {second}"
        << f"announce 0 cohort={first},{second},{third} until=120"
    )
    playbook.play("sleep 1", f"send {third}")
    assert f"{first}=deadline: no update within 60 s" in playbook.result(0)


def test_round_0_is_opened_again_under_its_number_when_nobody_is_left() -> None:
    """5.3 and 5.7: a `result` would stop edges that round 0 is still to ask, so there is none."""
    playbook = gathered(clients=2, per_round=1, grace=0)
    first, second = playbook.cohort[0], playbook.substitutes[0]
    assert (
        playbook
        >> f"fail {first}"
        << "announce 0"
        >> f"fail {second}"
        << "withdraw 0"
        >> "wait 0.9"
        >> "wait 0.1"
        << f"announce 0 cohort={first}"
    )
    playbook.play(f"send {first}")
    assert playbook.invariants.written == []
    assert playbook >> f"send {first} round=0" << f"accept {first} {first}@0", "the round closed twice"


def test_round_0_fails_the_run_after_five_attempts() -> None:
    """Without a result: a resume opens round 0 again, and edges that saw its result would not take part."""
    playbook = gathered(clients=1, per_round=1)
    for pause in (1, 2, 4, 8):
        assert playbook >> "fail 0" << "withdraw 0" >> f"wait {pause}" << "announce 0"
    assert playbook >> "fail 0" << "withdraw 0" << "end"
    assert isinstance(playbook.state.phase, Failed)


def test_first_weights_that_the_user_gave_need_no_round_0() -> None:
    """`--init`: they are version 0, and their manifest is the run's from the start."""
    playbook = Playbook(clients=2, per_round=2, first_weights=True)
    assert (
        playbook
        >> "start"
        << "publish v0 round=0 evaluate=-"
        >> "join 0"
        << "admit 0"
        >> "load 0 manifest=N"
        << "refuse 0 wrong-manifest"
        >> "load 0"
        << "admit 0"
        >> "join 1"
        << "admit 1"
        >> "load 1"
        << "admit 1"
        << "announce 1 base=v0 cohort=1,0"
    )


def test_a_run_fails_by_its_user_if_no_edge_has_what_is_to_stay_there() -> None:
    playbook = Playbook(clients=2, per_round=2, keep_local=("fc9.*",), wait=5.0, first_weights=False)
    playbook.play("start", "join 0", "join 1")
    for edge in ("0", "1"):
        playbook.play(f'join {edge} unable="--keep-local fc9.*: matches no array of the model"')
    playbook.play("wait 6")
    assert isinstance(playbook.state.phase, Failed)
    assert playbook.state.failed_by_user
    playbook = Playbook(clients=2, per_round=2, keep_local=("fc9.*",), wait=5.0, first_weights=False)
    playbook.play("start", "join 0", 'join 0 unable="--keep-local fc9.*: no"', "join 1 unable=busy", "wait 6")
    assert isinstance(playbook.state.phase, Failed)
    assert not playbook.state.failed_by_user


def test_an_edge_with_another_model_may_still_say_what_differs() -> None:
    playbook = Playbook(clients=1, per_round=1, first_weights=True, wait=100)
    playbook.play("start", "join 0", "load 0 manifest=N")
    assert isinstance(playbook.state.phase, Selecting)
    playbook.play("join 0 unable=array-w-differs")
    assert isinstance(playbook.state.phase, Failed)
    assert playbook.state.phase.detail == "all 1 edges decline: 0 (array-w-differs)"
