"""What the rate limiter charges, to whom, before a message is read."""

from __future__ import annotations

from fl_aggregator.messaging.rate_limiter import RateLimiter
from fl_aggregator.messaging.rate_limits import (
    CLIENT_BYTE_RATE,
    CLIENT_REGISTRATION_RATE,
    NEW_CLIENT_BURST,
    NEWCOMER_REGISTRATION_RATE,
    UNKNOWN_MESSAGE_RATE,
)
from fl_aggregator.round.roster import Client, Roster
from fl_shared.mqtt import events as mqtt

CLIENTS = 10


def limiter(roster: Roster | None = None) -> RateLimiter:
    return RateLimiter("fl", CLIENTS, 100, lambda: roster or Roster(), lambda: 0.0)


def message(topic: str, size: int = 0) -> mqtt.Received:
    return mqtt.Received(topic, b"", retain=False, qos=1, packet_size=size)


def admitted(limits: RateLimiter, received: mqtt.Received, count: int) -> int:
    return sum(limits.admit(received) is not None for _ in range(count))


def test_an_empty_message_is_charged_for_its_whole_packet() -> None:
    size = 16 * 2**20
    limits = limiter()
    assert admitted(limits, message("fl/updates/3", size), 100) == CLIENT_BYTE_RATE.burst // size
    [throttled] = limits.pop_throttled()
    assert throttled.client == "3"
    assert throttled.exceeded.reason == "too-many-bytes"


def test_messages_on_topics_of_nobody_are_charged_to_the_unknown() -> None:
    limits = limiter()
    assert admitted(limits, message("fl/updates/no good"), 5000) == UNKNOWN_MESSAGE_RATE.burst
    assert admitted(limits, message("fl/updates/3"), 1) == 1
    assert admitted(limits, message("fl/aggregator"), 5000) == 5000, "what others write there is repaired"


def test_who_is_refused_is_named_unless_all_newcomers_together_are() -> None:
    limits = limiter()
    assert admitted(limits, message("fl/register/mallory"), 1000) == NEWCOMER_REGISTRATION_RATE.burst
    for number in range(NEW_CLIENT_BURST + 2 * CLIENTS):
        limits.admit(message(f"fl/register/fresh-{number}"))
    throttled = {one.client: one for one in limits.pop_throttled()}
    assert set(throttled) == {"mallory", None}
    assert throttled["mallory"].count == 1000 - NEWCOMER_REGISTRATION_RATE.burst
    assert not throttled["mallory"].notify, "it has no session that could be told"
    assert throttled[None].count == NEWCOMER_REGISTRATION_RATE.burst


def test_a_newcomer_that_joins_has_the_limits_of_an_edge() -> None:
    client = Client("s", "d", ("train",), ("f32",), 0.0)
    limits = limiter(Roster({"anna": client}))
    assert admitted(limits, message("fl/register/anna"), 1000) == CLIENT_REGISTRATION_RATE.burst
