"""What is retained is published again at a reconnect, and what was cleared is cleared again."""

from __future__ import annotations

from fl_aggregator.messaging import retained
from fl_aggregator.messaging.retained import RetainedMessages


def test_a_broker_that_restores_what_was_cleared_loses_it_again() -> None:
    sent: list[tuple[str, bytes]] = []
    messages = RetainedMessages(lambda topic, payload: sent.append((topic, payload)))
    for topic in ("a", "b", "c"):
        messages.retain(topic, topic.encode(), topic.encode)
    assert messages.clear("a")
    assert messages.clear("b")
    assert not messages.clear("b")
    messages.retain("b", b"B", lambda: b"B")
    sent.clear()
    messages.publish_all(but="c")
    assert sent == [("a", b""), ("b", b"B")]


def test_only_the_newest_cleared_topics_are_remembered() -> None:
    sent: list[str] = []
    messages = RetainedMessages(lambda topic, _payload: sent.append(topic))
    for number in range(retained.MAX_CLEARED_TOPICS + 2):
        messages.retain(f"{number}", b"x", lambda: b"x")
        messages.clear(f"{number}")
    sent.clear()
    messages.publish_all(but="")
    assert (sent[0], len(sent)) == ("2", retained.MAX_CLEARED_TOPICS)
