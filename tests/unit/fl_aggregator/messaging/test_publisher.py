"""An open round is published again, since a broker may drop it on its way to an edge."""

from __future__ import annotations

from typing import cast

from fl_aggregator.messaging.connections import Connections
from fl_aggregator.messaging.publisher import ModelPublisher
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from tests.support.samples import MESSAGES

SELECTED = cast(m.Selected, MESSAGES["selected"][1])


class Retained:
    """What was retained and cleared, in this order."""

    def __init__(self) -> None:
        self.topics: list[t.Topic] = []
        self.messages: list[m.Message] = []

    def retain(self, topic: t.Topic, message: m.Message) -> None:
        self.topics.append(topic)
        self.messages.append(message)

    send = retain

    def clear(self, topic: t.Topic) -> None:
        pass


def opened(selected: m.Selected, cohort: tuple[str, ...]) -> tuple[ModelPublisher, Retained]:
    retained = Retained()
    publisher = ModelPublisher(cast(Connections, retained), EnvelopeSource(SELECTED.run, 1), "digits", 2**20)
    publisher.announce(selected, cohort, 100.0)
    retained.topics.clear()
    retained.messages.clear()
    return publisher, retained


def test_an_open_round_is_published_again_with_growing_pauses_and_the_time_that_is_left() -> None:
    publisher, retained = opened(SELECTED, ("7", "8"))
    times: list[int] = []
    for now in range(100, 400):
        before = len(retained.topics)
        publisher.repeat(("7",), float(now))
        times += [now] * (len(retained.topics) - before)
    assert times == [110, 130, 170, 230, 290, 350]
    assert set(retained.topics) == {t.SelectedTopic(SELECTED.round)}
    again = retained.messages[0]
    assert isinstance(again, m.Selected)
    assert again.seconds_left == SELECTED.seconds_left - 10
    assert again.model_copy(update={"seq": SELECTED.seq, "seconds_left": SELECTED.seconds_left}) == SELECTED


def test_a_large_cohort_is_told_on_the_topics_of_those_that_are_awaited() -> None:
    publisher, retained = opened(SELECTED.model_copy(update={"cohort": None}), ("7", "8"))
    publisher.repeat(("8",), 110.0)
    assert retained.topics == [t.WorkTopic("8")], "and nobody else hears of it"


def test_an_edge_that_registers_in_its_round_is_told_on_its_own_topic() -> None:
    publisher, sent = opened(SELECTED, ("7", "8"))
    publisher.repeat_to("7", 104.0)
    assert sent.topics == [t.WorkTopic("7")]
    assert isinstance(again := sent.messages[0], m.Selected)
    assert again.seconds_left == SELECTED.seconds_left - 4
    publisher.withdraw(SELECTED.round)
    publisher.repeat_to("7", 105.0)
    assert len(sent.topics) == 1, "no round is open"


def test_nothing_is_published_for_nobody_or_after_the_round() -> None:
    publisher, retained = opened(SELECTED, ("7", "8"))
    publisher.repeat((), 110.0)
    publisher.withdraw(SELECTED.round)
    publisher.repeat(("7",), 1000.0)
    assert retained.topics == []
