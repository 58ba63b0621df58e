"""What is more than anybody may say is told from what is asked for; all that counts it is bounded."""

from __future__ import annotations

import logging

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.rate_limits import (
    CLIENT_BYTE_RATE,
    CLIENT_MESSAGE_RATE,
    CLIENT_PRESENCE_RATE,
    CLIENT_REGISTRATION_RATE,
    LIMIT_NOTICE_INTERVAL,
    NEW_CLIENT_BURST,
    NEWCOMER_MESSAGE_RATE,
    NEWCOMER_PRESENCE_RATE,
    NEWCOMER_REGISTRATION_RATE,
    UNKNOWN_MESSAGE_RATE,
    LimitExceeded,
    RateLimits,
)
from fl_aggregator.messaging.rejections import UNKNOWN, Rejections
from fl_aggregator.monitoring.views import status
from fl_aggregator.round.state import new_run
from fl_edge.prediction import rate_limit
from fl_edge.prediction.rate_limit import PredictionRateLimiter
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol.channels import Limit
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.system.token_bucket import Rate, TokenBucket

CLIENTS = 20
KNOWN = 1000


@pytest.fixture
def limits() -> RateLimits:
    return RateLimits(CLIENTS, KNOWN, 0.0)


def passes(limits: RateLimits, client: str | None, kind: Limit, size: int, now: float, times: int) -> int:
    """How many of so many messages are read."""
    return sum(limits.charge(client, kind, size, now) is None for _ in range(times))


# --- buckets ------------------------------------------------------------------------------------------------


def test_a_bucket_gives_what_is_in_it_and_is_filled_in_time() -> None:
    bucket = TokenBucket(Rate(2, 10), 100.0)
    assert bucket.take(10, 100.0)
    assert not bucket.take(1, 100.4)
    assert bucket.take(1, 100.5)
    assert bucket.take(10, 1000.0), "never more than the burst"
    assert not bucket.take(1, 1000.0)


def test_what_does_not_fit_takes_nothing() -> None:
    bucket = TokenBucket(Rate(1, 10), 0.0)
    assert not bucket.take(11, 0.0)
    assert bucket.take(10, 0.0)


def test_a_clock_that_goes_back_fills_nothing() -> None:
    bucket = TokenBucket(Rate(1, 10), 50.0)
    assert bucket.take(10, 50.0)
    assert not bucket.take(1, 0.0)
    assert not bucket.take(1, 50.0)


def test_what_is_given_back_is_there_again_but_no_more() -> None:
    bucket = TokenBucket(Rate(1, 10), 0.0)
    bucket.take(4, 0.0)
    bucket.give_back(100)
    assert bucket.take(10, 0.0)
    assert not bucket.take(1, 0.0)
    bucket.refill()
    assert bucket.take(10, 0.0)


# --- the aggregator's limits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "rate", "reason"),
    [
        ("other", CLIENT_MESSAGE_RATE, "too-many-messages"),
        ("registration", CLIENT_REGISTRATION_RATE, "too-many-registrations"),
        ("presence", CLIENT_PRESENCE_RATE, "too-many-presences"),
    ],
)
def test_one_client_may_say_so_much_and_no_more(
    limits: RateLimits, kind: Limit, rate: Rate, reason: m.LimitReason
) -> None:
    assert passes(limits, "a", kind, 100, 0.0, 5000) == rate.burst
    exceeded = limits.charge("a", kind, 100, 0.0)
    assert isinstance(exceeded, LimitExceeded)
    assert exceeded.reason == reason
    assert f"at most {rate.per_second:g} per second" in str(exceeded)
    assert passes(limits, "a", kind, 100, 10.0, 5000) == min(rate.burst, 10 * rate.per_second)
    assert passes(limits, "b", kind, 100, 0.0, 10) == 10, "another one has an account of its own"


def test_bytes_count_whatever_they_are_in(limits: RateLimits) -> None:
    size = m.MAX_PACKET
    assert passes(limits, "a", "other", size, 0.0, 100) == CLIENT_BYTE_RATE.burst // size
    exceeded = limits.charge("a", "other", size, 0.0)
    assert isinstance(exceeded, LimitExceeded)
    assert exceeded.reason == "too-many-bytes"
    assert "33554432 per second" in str(exceeded)
    assert passes(limits, "a", "other", size, 10.0, 100) == CLIENT_BYTE_RATE.burst // size, (
        "the largest packet always fits"
    )


@pytest.mark.parametrize("client", ["a", None])
def test_who_took_too_much_time_pays_for_it_before_he_is_read_again(
    limits: RateLimits, client: str | None
) -> None:
    assert limits.charge(client, "other", 100, 0.0) is None
    limits.charge_work(client, 12.0, 0.0)
    exceeded = limits.charge(client, "other", 100, 0.0)
    assert isinstance(exceeded, LimitExceeded)
    assert exceeded.reason == "too-much-work"
    assert "seconds of decoding: expected at most" in str(exceeded)
    assert limits.charge("b", "other", 100, 0.0) is None
    assert limits.charge(client, "other", 100, 30.0) is not None
    assert limits.charge(client, "other", 100, 101.0) is None


def test_an_upload_at_full_speed_meets_no_limit(limits: RateLimits) -> None:
    """What was granted is given back: a hundred edges bring 47 MB each, in chunks of 1 KiB or of 1 MiB."""
    for edge in range(100):
        for size in [2**20] * 47 + [2**10] * 3000:
            assert limits.charge(str(edge), "other", size, 0.0) is None
            limits.give_back(str(edge), size, 0.0)


def test_whoever_is_selected_begins_anew(limits: RateLimits) -> None:
    """Rounds that follow one another fast bring unwanted updates, too: those over the target."""
    for _ in range(50):
        assert passes(limits, "a", "other", 2**20, 0.0, 100) == 100
        limits.refill(["a", "never heard of"])
    assert len(limits) == 1


def test_a_storm_of_reconnects_meets_no_limit(limits: RateLimits) -> None:
    """Five hundred edges are cut off and come back, ten times within twenty seconds: twice they register each time."""
    for again in range(10):
        for edge in range(500):
            now = again * 2.0
            assert passes(limits, str(edge), "presence", 100, now, 2) == 2
            assert passes(limits, str(edge), "registration", 300, now, 2) == 2


def test_all_edges_of_a_large_fleet_may_come_at_once() -> None:
    limits = RateLimits(10_000, Settings(clients=10_000).roster_limit, 0.0)
    assert passes(limits, None, "presence", 100, 0.0, 10_000) == 10_000
    assert passes(limits, None, "registration", 300, 0.0, 10_000) == 10_000


def test_names_that_nobody_knows_share_what_there_is_for_them(limits: RateLimits) -> None:
    at_once = NEW_CLIENT_BURST + 2 * CLIENTS
    assert passes(limits, None, "registration", 300, 0.0, 20_000) == at_once
    assert passes(limits, None, "registration", 300, 60.0, 20_000) == 300
    assert passes(limits, None, "other", 300, 60.0, 20_000) == UNKNOWN_MESSAGE_RATE.burst
    assert len(limits) == 0
    assert passes(limits, "7", "registration", 300, 60.0, 1) == 1, "a known one is not among them"


def newcomer(limits: RateLimits, name: str, now: float, times: int, kind: Limit = "registration") -> int:
    return sum(limits.charge(name, kind, 300, now, known=False) is None for _ in range(times))


@pytest.mark.parametrize(
    ("kind", "rate"),
    [
        ("registration", NEWCOMER_REGISTRATION_RATE),
        ("presence", NEWCOMER_PRESENCE_RATE),
        ("other", NEWCOMER_MESSAGE_RATE),
    ],
)
def test_one_newcomer_does_not_keep_others_out(limits: RateLimits, kind: Limit, rate: Rate) -> None:
    """Whatever one sends for an hour, each of a thousand others may come."""
    for second in range(0, 3600, 10):
        newcomer(limits, "mallory", float(second), 100, kind)
    exceeded = limits.charge("mallory", kind, 300, 3590.0, known=False)
    assert exceeded is not None
    assert (exceeded.rate, exceeded.shared) == (rate, False)
    assert sum(newcomer(limits, f"honest-{number}", 3590.0, 1, kind) for number in range(1000)) == 1000


def test_a_newcomer_may_repeat_its_registration_until_it_is_answered(limits: RateLimits) -> None:
    """As an edge does at first: after 1, 2, 4, … seconds, and then every 15; on five connections at once."""
    now = 0.0
    for attempt in range(200):
        assert newcomer(limits, "anna", now, 5 if attempt == 0 else 1) > 0
        now += min(2**attempt, 15)


def test_names_made_up_use_up_what_is_for_newcomers_and_nothing_else(limits: RateLimits) -> None:
    admitted = sum(newcomer(limits, f"fresh-{number}", 0.0, 1) for number in range(20_000))
    assert admitted == NEW_CLIENT_BURST + 2 * CLIENTS
    exceeded = limits.charge("fresh", "registration", 300, 0.0, known=False)
    assert exceeded is not None
    assert exceeded.shared
    assert len(limits) == KNOWN + CLIENTS, "not all of them are remembered"
    assert limits.charge("7", "registration", 300, 0.0) is None
    assert newcomer(limits, "anna", 1.0, 1) == 1, "there is room for five a second"


def test_accounts_are_bounded(limits: RateLimits) -> None:
    for number in range(20_000):
        assert limits.charge(f"name-{number}", "other", 1, 0.0) is None
    assert len(limits) == KNOWN + CLIENTS
    assert passes(limits, "name-19999", "other", 1, 0.0, 10_000) == CLIENT_MESSAGE_RATE.burst - 1, (
        "the newest are kept"
    )


def test_a_client_is_told_once_in_a_while(limits: RateLimits) -> None:
    assert limits.should_notify("a", 0.0)
    assert not limits.should_notify("a", LIMIT_NOTICE_INTERVAL - 0.1)
    assert limits.should_notify("b", LIMIT_NOTICE_INTERVAL - 0.1)
    assert limits.should_notify("a", LIMIT_NOTICE_INTERVAL)


# --- what is shown of it ------------------------------------------------------------------------------------


def test_the_worst_few_are_named_and_not_who_was_only_late() -> None:
    refusals = Rejections()
    refusals.count("a", "too-many-messages", "x", 5)
    refusals.count("a", "malformed", "x", 2)
    refusals.count(None, "too-many-registrations", "x", 19_000)
    refusals.count("slow", "late", "x", 500)
    refusals.count("b", "malformed", "x", 1)
    assert refusals.most_rejected(3) == {UNKNOWN: 19_000, "a": 7, "b": 1}
    assert list(refusals.most_rejected(2)) == [UNKNOWN, "a"]


def test_the_status_names_the_worst_in_the_room_that_it_has() -> None:
    state = new_run(Settings(task="x" * 64))
    worst = {f"{letter * 64}": 2**53 for letter in "abc"}
    whole = status.status_message(state, EnvelopeSource("R", 1), 0.0, None, {"a": 1})
    assert whole.refused == {"a": 1}
    crowded = status.status_message(state, EnvelopeSource("r" * 64, 1), 0.0, "disk full " * 30, worst)
    assert len(codec.encode(crowded)) <= status.MAX_STATUS_BYTES
    assert status.status_message(state, EnvelopeSource("R", 1), 0.0).refused == {}


# --- predictions --------------------------------------------------------------------------------------------


def test_one_asker_leaves_room_for_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    asked = PredictionRateLimiter(0.0)
    answered = sum(asked.refusal("greedy", 100, 0.0) is None for _ in range(10_000))
    assert answered == rate_limit.REQUEST_RATE_PER_ASKER.burst
    assert asked.refusal("modest", 100, 0.0) is None
    why = asked.refusal("greedy", 100, 0.0)
    assert why is not None
    assert "200 per second with one response topic" in why
    told = [asked.should_notify(why, second / 100) for second in range(1000)]
    assert sum(told) == 10
    assert len(caplog.records) == 4


def test_all_askers_together_have_a_limit_and_are_not_remembered_for_ever() -> None:
    asked = PredictionRateLimiter(0.0)
    answered = sum(asked.refusal(f"asker-{n}", 100, 0.0) is None for n in range(20_000))
    assert answered == rate_limit.REQUEST_RATE.burst
    assert len(asked) == rate_limit.MAX_ASKERS
    for n in range(100):
        asked.charge_work(f"bomber-{n}", 0.2, 50.0)
    assert asked.refusal("modest", 100, 51.0) == "requests: expected at most 1 s of work per second"
    answered = sum(asked.refusal(None, 2**24, 100.0) is None for _ in range(100))
    assert answered == rate_limit.BYTE_RATE.burst // 2**24
