"""Who is selected, and who takes the place of whom; `docs/protocol.md`, 5.1 and 5.2."""

from __future__ import annotations

import pytest

from fl_aggregator.round.selecting import permutation
from tests.support.round_playbook import round_done, training

# --- selection --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_first_ranks_of_the_permutation_are_the_cohort_and_the_rest_its_substitutes(seed: int) -> None:
    playbook = training(clients=6, per_round=2, over_select=1, seed=seed)
    order = permutation([str(n) for n in range(6)], seed, 1)
    assert playbook.cohort == order[:3]
    assert playbook.substitutes == order[3:]
    assert playbook.collecting.target == 2


def test_only_edges_that_are_present_are_drawn() -> None:
    playbook = training(clients=4, per_round=2, grace=0)
    away = playbook.substitutes[0]
    playbook.play(f"lose {away}")
    round_done(playbook)
    assert away not in playbook.cohort + playbook.substitutes


def test_over_selection_the_first_to_answer_count_and_the_others_are_surplus() -> None:
    """5.6: "`surplus` (the round closed without it)"; 5.8: "when the target (`--per-round`) is in"."""
    playbook = training(clients=3, per_round=2, over_select=1, auto=False)
    a, b, c = playbook.cohort
    playbook.play(f"send {a}", f"kept {a}", f"send {b}")
    assert (
        playbook
        >> f"kept {b}"
        << f"accept {b}"
        << f"fold {b}@1"
        << "average 1"
        >> f"send {c} round=1"
        << f"reject {c} {c}@1 surplus"
        >> "made"
        << "publish v1"
        << f"result 1 committed v1 {c}=surplus*"
        << "withdraw 1"
        << "announce 2"
        >> f"send {c} round=1 base=v0"
        << f"reject {c} {c}@1 surplus"
    )


# --- substitutes, grace -----------------------------------------------------------------------------------


def test_a_substitute_is_called_when_the_grace_is_over() -> None:
    """5.1: "It is sent again, with a longer cohort, when substitutes are called"."""
    playbook = training(clients=4, per_round=2, grace=5)
    (a, b), (c, d) = playbook.cohort, playbook.substitutes
    assert (
        playbook
        >> f"lose {a}"
        >> "wait 4.9"
        >> "wait 0.1"
        << f"announce 1 base=v0 cohort={a},{b},{c} until=600"
        >> f"lose {b}"
        >> "wait 5"
        << f"announce 1 cohort={a},{b},{c},{d} until=600"
    )


def test_without_grace_a_substitute_is_called_at_once() -> None:
    playbook = training(clients=3, per_round=1, grace=0)
    (a,), (b, _) = playbook.cohort, playbook.substitutes
    assert playbook >> f"lose {a}" << f"announce 1 cohort={a},{b}"


def test_a_link_that_only_blinks_calls_nobody() -> None:
    playbook = training(clients=3, per_round=1, grace=5)
    (a,) = playbook.cohort
    assert (
        playbook >> f"lose {a}" >> "sleep 4" >> f"rejoin {a}" << f"admit {a} part={a} to={a}.2" >> "wait 60"
    )


def test_a_substitute_that_is_gone_is_passed_over() -> None:
    playbook = training(clients=4, per_round=1, grace=0)
    (a,), (b, c, _) = playbook.cohort, playbook.substitutes
    assert playbook >> f"lose {b}" >> f"lose {a}" << f"announce 1 cohort={a},{c}"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("send {} examples=0", "bad-examples"),
        ("unusable {} too-large", "too-large"),
        ("unusable {} malformed", "malformed"),
    ],
)
def test_after_a_rejection_a_substitute_is_called_at_once(how: str, reason: str) -> None:
    """5.6: "A rejected update is dropped by its edge", so nothing more will come."""
    playbook = training(clients=3, per_round=2, grace=5)
    (a, b), (c,) = playbook.cohort, playbook.substitutes
    assert playbook >> how.format(a) << f"reject {a} * {reason}" << f"announce 1 cohort={a},{b},{c}"
    playbook.play(f"send {b}", f"send {c}")
    missing = playbook.result(1)
    assert f"{a}=rejected: {reason}" in missing


def test_after_a_failure_a_substitute_is_called_at_once() -> None:
    """5.2: "If it cannot train it sends `failed`"."""
    playbook = training(clients=3, per_round=2, grace=5)
    (a, b), (c,) = playbook.cohort, playbook.substitutes
    assert playbook >> f"fail {a} detail='disk full'" << f"announce 1 cohort={a},{b},{c}"
    playbook.play(f"send {b}", f"send {c}")
    assert f"{a}=failed: disk full" in playbook.result(1)


def test_what_an_edge_says_of_its_failure_is_cut() -> None:
    """A result names many, and a message takes so much."""
    playbook = training(clients=2, per_round=2, quorum=1)
    a, b = playbook.cohort
    playbook.play(f"fail {a} detail={'x' * 5000}", f"send {b}")
    committed = playbook.state.pending_summaries[-1]
    assert len(committed.missing[a]) == 240
    assert committed.missing[a].endswith("x…")


def test_a_failure_in_another_round_or_by_an_unselected_edge_changes_nothing() -> None:
    playbook = training(clients=3, per_round=1)
    (a,), (b, _) = playbook.cohort, playbook.substitutes
    assert playbook >> f"fail {a} round=0" >> f"fail {a} round=7" >> f"fail {b}" >> "fail nobody"


def test_an_edge_that_returns_after_its_substitute_was_called_still_counts() -> None:
    playbook = training(clients=3, per_round=2, grace=0, quorum=2)
    (a, b), (c,) = playbook.cohort, playbook.substitutes
    playbook.play(f"lose {a}", f"rejoin {a}", f"send {a}", f"send {b}")
    assert playbook.state.version == 1
    assert set(playbook.state.closed_rounds[-1].accepted) == {a, b}
    assert f"{c}=surplus" in playbook.result(1)


def test_an_update_counts_even_after_the_will_of_its_edge() -> None:
    """Design §3: "An update of a selected edge counts until the close even after its will"."""
    playbook = training(clients=2, per_round=2, grace=5)
    a, b = playbook.cohort
    assert playbook >> f"lose {a}" >> f"send {a}" << f"keep {a}@1" << f"accept {a}" << f"fold {a}@1"
    playbook.play(f"send {b}")
    assert playbook.state.version == 1
