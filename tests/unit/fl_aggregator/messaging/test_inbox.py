"""The aggregator's inbox: two lanes, both bounded; what has no room is counted."""

from __future__ import annotations

from fl_aggregator.messaging.inbox import MAX_CONTROL_BURST, AdmittedMessage, Inbox, StopRequest
from fl_shared.mqtt.events import Lost, Received
from fl_shared.protocol.topics import UpdatesTopic


def message(size: int, topic: str = "fl/x") -> Received:
    return Received(topic, b"x" * size, False, 1)


def admit(received: Received) -> AdmittedMessage:
    return AdmittedMessage(None, received)


def topics(inbox: Inbox) -> list[str]:
    found = []
    while (item := inbox.get(0.0)) is not None:
        assert isinstance(item[1], AdmittedMessage)
        found.append(item[1].received.topic)
    return found


def test_control_overtakes_updates_but_not_for_ever() -> None:
    inbox = Inbox(admit)
    inbox.put("updates", message(1, "update"))
    for number in range(MAX_CONTROL_BURST + 5):
        inbox.put("control", message(1, f"control {number}"))
    order = topics(inbox)
    assert order.index("update") == MAX_CONTROL_BURST
    assert len(order) == MAX_CONTROL_BURST + 6


def test_control_messages_are_bounded_in_bytes_and_in_number() -> None:
    inbox = Inbox(admit, max_waiting=20, max_control_bytes=1000)
    for number in range(5):
        inbox.put("control", message(300, str(number)))
    assert inbox.pop_dropped() == 2
    assert topics(inbox) == ["0", "1", "2"]
    inbox.put("control", message(900))
    assert inbox.pop_dropped() == 0, "there is room again"
    assert len(topics(inbox)) == 1
    for _ in range(30):
        inbox.put("control", message(1))
    assert inbox.pop_dropped() == 10
    assert inbox.pop_dropped() == 0


def test_updates_are_bounded_in_bytes_but_for_one() -> None:
    inbox = Inbox(admit, max_update_bytes=1000)
    for number in range(3):
        inbox.put("updates", message(5000, str(number)))
    assert inbox.pop_dropped() == 2
    assert topics(inbox) == ["0"]
    inbox.put("updates", message(600, "3"))
    inbox.put("updates", message(300, "4"))
    assert topics(inbox) == ["3", "4"]


def test_properties_take_room_as_the_payload_does_and_empty_messages_are_bounded_too() -> None:
    inbox = Inbox(admit, max_waiting=20, max_update_bytes=1000)
    for _ in range(3):
        inbox.put("updates", Received("fl/x", b"", False, 1, packet_size=900))
    assert inbox.pop_dropped() == 2
    assert len(topics(inbox)) == 1
    for _ in range(30):
        inbox.put("updates", Received("fl/x", b"", False, 1))
    assert inbox.pop_dropped() == 10


def test_what_is_no_message_is_never_dropped() -> None:
    inbox = Inbox(admit, max_waiting=0, max_update_bytes=0)
    items = (StopRequest("stop"), Lost("x", 0))
    inbox.put("control", items[0])
    inbox.put("updates", message(10))
    inbox.put("updates", items[1])
    assert inbox.pop_dropped() == 0
    first, *rest = (inbox.get(0.0) for _ in range(3))
    assert first == ("control", items[0])
    assert rest[-1] == ("updates", items[1])
    assert inbox.get(0.0) is None


def test_senders_of_updates_take_turns() -> None:
    def by_topic(received: Received) -> AdmittedMessage:
        return AdmittedMessage(UpdatesTopic(received.topic[0]), received)

    inbox = Inbox(by_topic)
    for topic in ("a1", "a2", "a3", "b1", "c1", "b2"):
        inbox.put("updates", message(1, topic))
    assert inbox.queued_items == 6
    assert topics(inbox) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert inbox.queued_items == 0


def test_the_end_is_not_held_up_by_a_flood() -> None:
    inbox = Inbox(admit)
    inbox.put("updates", message(1, "update"))
    for number in range(MAX_CONTROL_BURST + 5):
        inbox.put("control", message(1, f"control {number}"))
    for _ in range(MAX_CONTROL_BURST):
        inbox.get(0.0)
    inbox.put("control", StopRequest("SIGINT"))
    assert inbox.get(0.0) == ("control", StopRequest("SIGINT")), "though it is an update's turn"
    assert topics(inbox)[0] == "update"
