"""A will that overtakes the registration of its session."""

from __future__ import annotations

from fl_aggregator.messaging.ended_sessions import MAX_ENDED_SESSIONS, SESSION_OVERLAP, EndedSessions


def test_a_will_that_overtakes_the_registration_is_remembered_for_a_while() -> None:
    ended = EndedSessions()
    ended.add("a", "2", 5.0)
    ended.add("new", "1", 6.0)
    assert ended.has_ended("a", "2", 5.0 + SESSION_OVERLAP - 0.1)
    assert not ended.has_ended("a", "2", 5.0 + SESSION_OVERLAP)
    assert not ended.has_ended("a", "3", 5.1), "the edge has come back"
    assert ended.has_ended("new", "1", 6.1)
    assert not ended.has_ended("nobody", "1", 6.1)
    ended.add("a", "2", 8.0)
    assert not ended.has_ended("a", "2", 5.0 + SESSION_OVERLAP), "said twice"


def test_a_flood_of_wills_does_not_fill_the_memory() -> None:
    ended = EndedSessions()
    for number in range(MAX_ENDED_SESSIONS + 10):
        ended.add(str(number), "s", 1.0)
        ended.add("again", str(number), 1.0)
    assert len(ended) == MAX_ENDED_SESSIONS
    ended.add("x", "s", 1.0 + SESSION_OVERLAP)
    assert len(ended) == 1
