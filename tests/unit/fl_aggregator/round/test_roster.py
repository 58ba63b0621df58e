"""Who is known, present, eligible, and whose part is whose."""

from __future__ import annotations

import math

import pytest

from fl_aggregator.round.roster import (
    REREGISTRATION_GRACE,
    Client,
    Roster,
    assign_partitions,
    default_partition,
    partition_for,
)


def test_who_is_dispensable_when_there_are_too_many() -> None:
    never = {"examples": None, "manifest": None}
    roster = Roster(
        {
            "ready": client(part=0),
            "lost": client(part=1, lost_at=1.0),
            "loading": client(part=2, registered_at=1.0, **never),
            "evaluator": client(roles=("evaluate",), **never),
            "waiting": client(registered_at=3.0, **never),
            "predictor": client(roles=("predict",), registered_at=2.0, **never),
            "gone": client(part=3, registered_at=9.0, lost_at=10.0, **never),
        }
    )
    assert roster.has_evictable()
    assert roster.evictable(1) == ("gone",)
    assert roster.evictable(10) == ("gone", "predictor", "waiting")
    rest = roster.without(roster.evictable(10))
    assert not rest.has_evictable()
    assert set(rest) == {"ready", "lost", "loading", "evaluator"}


def client(part: int | None = None, **fields: object) -> Client:
    known: dict[str, object] = {
        "session": "s",
        "device": "d",
        "roles": ("train",),
        "encodings": ("f32",),
        "registered_at": 0.0,
        "partition": part,
        "manifest": "M",
        "examples": 10,
    }
    return Client(**{**known, **fields})  # type: ignore[arg-type]


def test_eligible_is_who_trains_is_present_has_data_and_agrees_on_the_manifest() -> None:
    roster = Roster(
        {
            "b": client(),
            "a": client(),
            "lost": client(lost_at=1.0),
            "loading": client(examples=None, manifest=None),
            "empty": client(examples=0),
            "other": client(manifest="N"),
            "evaluator": client(roles=("evaluate",)),
        }
    )
    assert roster.eligible("M") == ("a", "b")
    assert roster.eligible("N") == ("other",)
    assert roster.trainers() == ("a", "b", "empty", "loading", "other")


def test_a_will_counts_for_the_session_that_left_it_and_only_once() -> None:
    roster = Roster({"a": client(session="2")})
    assert roster.mark_lost("a", "1", 5.0) is roster
    assert roster.mark_lost("nobody", "1", 5.0) is roster
    lost = roster.mark_lost("a", "2", 5.0)
    assert lost["a"].lost_at == 5.0
    assert lost.mark_lost("a", "2", 9.0) is lost
    assert roster["a"].present, "never changed in place"


@pytest.mark.parametrize(("grace", "now", "absent"), [(0, 5.0, True), (5, 9.9, False), (5, 10.0, True)])
def test_absent_is_who_was_away_for_longer_than_the_grace(grace: float, now: float, absent: bool) -> None:
    roster = Roster({"a": client(lost_at=5.0), "here": client()})
    assert roster.is_absent("a", now, grace) is absent
    assert not roster.is_absent("here", now, grace)
    assert roster.is_absent("nobody", now, grace)


def test_after_our_own_reconnect_who_was_present_is_absent_only_after_a_while() -> None:
    roster = Roster({"a": client(), "gone": client(lost_at=1.0)}).mark_all_unconfirmed(100.0)
    assert not roster["a"].present
    assert roster["gone"] == client(lost_at=1.0)
    assert not roster.is_absent("a", 100.0 + REREGISTRATION_GRACE - 0.1, grace=0)
    assert roster.is_absent("a", 100.0 + REREGISTRATION_GRACE, grace=0)
    assert not roster.is_absent("a", 100.0 + REREGISTRATION_GRACE, grace=60)
    assert roster.is_in_use("a", 105.0)
    assert not roster.is_in_use("gone", 105.0)
    assert not roster.is_in_use("nobody", 105.0)
    assert roster.trainers_confirmed_at() == 100.0 + REREGISTRATION_GRACE
    again = roster.mark_all_unconfirmed(108.0)
    assert not again.is_absent("a", 117.0, grace=0), "a second reconnect: the time begins again"


def test_a_will_confirms_the_loss_from_when_it_was_suspected() -> None:
    roster = Roster({"a": client()}).mark_all_unconfirmed(100.0).mark_lost("a", "s", 103.0)
    assert roster["a"].lost_at == 100.0
    assert roster.is_absent("a", 103.0, grace=3)
    assert not roster.is_in_use("a", 103.0)
    assert roster.trainers_confirmed_at() == -math.inf


@pytest.mark.parametrize(
    ("name", "part"),
    [("0", 0), ("4", 4), ("5", None), ("04", None), ("-0", None), ("+1", None), (" 1", None), ("a", None)],
)
def test_the_own_part_of_an_id(name: str, part: int | None) -> None:
    assert default_partition(name, 5) == part


def test_a_part_is_given_by_number_then_in_the_order_of_the_ids() -> None:
    roster = Roster({"x": client(), "b": client(), "1": client(part=1), "away": client(lost_at=1.0)})
    given, names = assign_partitions(roster, 4)
    assert names == ("b", "x")
    assert {name: given[name].partition for name in given} == {"x": 2, "b": 0, "1": 1, "away": None}
    assert assign_partitions(given, 4) == (given, ())


def test_more_edges_than_parts() -> None:
    roster = Roster({"a": client(), "b": client(), "c": client()})
    given, names = assign_partitions(roster, 2)
    assert names == ("a", "b")
    assert given["c"].partition is None
    assert partition_for(given, "d", 2, run_begun=True) == "none-left"
    assert partition_for(given, "1", 2, run_begun=True) == "none-left", "its own is another's already"
    assert partition_for(given, "a", 2, run_begun=True) == 0


def test_before_the_start_a_name_waits_and_afterwards_it_gets_the_first_free_part() -> None:
    roster = Roster({"0": client(part=0)})
    assert partition_for(roster, "a", 3, run_begun=False) is None
    assert partition_for(roster, "a", 3, run_begun=True) == 1
    assert partition_for(roster, "2", 3, run_begun=False) == 2


def test_who_was_lost_just_before_the_broker_went_is_not_taken_to_be_gone() -> None:
    """A broker that is stopped in order sends all wills, and then cuts everybody off."""
    roster = Roster({"a": client(lost_at=99.0), "gone": client(lost_at=97.5)}).undo_recent_losses(100.0)
    assert roster["a"].present
    assert not roster.is_absent("a", 500.0, 5.0), "while nobody can be heard"
    assert roster["gone"].lost_at == 97.5
    left = Roster({"a": client()}).mark_lost("a", client().session, 99.0, "it was stopped")
    assert not left.undo_recent_losses(100.0)["a"].present, "it said so itself"
    roster = roster.mark_all_unconfirmed(130.0)
    assert not roster.is_absent("a", 139.0, 5.0)
    assert roster.is_absent("a", 140.0, 5.0), "who does not come back was gone"
