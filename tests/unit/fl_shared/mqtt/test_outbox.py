"""What waits to be sent: bounded, in order, within the window."""

from __future__ import annotations

import pytest

from fl_shared.errors import QueueFull
from fl_shared.mqtt.outbox import ACK_WINDOW, ACK_WINDOW_BYTES, Outbox, Publish, Subscribe


def message(name: str, qos: int = 1, payload: bytes = b"") -> Publish:
    return Publish(name, payload, qos, False)


def taken(outbox: Outbox) -> list[str]:
    """The topics of all that may be sent now, sent under message ids of their number."""
    names = []
    while (found := outbox.pop_sendable()) is not None:
        item, size = found
        assert isinstance(item, Publish)
        outbox.mark_sent(int(item.topic), size, awaits_ack=item.qos > 0)
        names.append(item.topic)
    return names


@pytest.mark.parametrize(("announced", "window"), [(3, 3), (65_535, ACK_WINDOW)])
def test_no_more_wait_for_an_acknowledgement_than_the_broker_announced(announced: int, window: int) -> None:
    outbox = Outbox(100, 1000, announced)
    for i in range(50):
        assert outbox.put(message(str(i)), 1)
    assert taken(outbox) == [str(i) for i in range(window)]
    outbox.mark_acknowledged(1)
    outbox.mark_acknowledged(0)
    outbox.mark_acknowledged(0)
    outbox.mark_acknowledged(4711)
    assert taken(outbox) == [str(window), str(window + 1)]
    assert not outbox.idle


def test_bytes_on_their_way_are_bounded_but_one_message_always_goes() -> None:
    outbox = Outbox(100, 10 * ACK_WINDOW_BYTES, 65_535)
    for i in range(4):
        outbox.put(message(str(i), qos=i % 2), ACK_WINDOW_BYTES // 2 + (i == 0) * 2 * ACK_WINDOW_BYTES)
    assert taken(outbox) == ["0"]
    outbox.mark_acknowledged(0)
    assert taken(outbox) == ["1", "2"]
    outbox.mark_acknowledged(1)
    outbox.mark_acknowledged(2)
    assert taken(outbox) == ["3"]
    outbox.mark_acknowledged(3)
    assert outbox.idle


def test_what_waits_and_what_is_on_its_way_are_bounded_together() -> None:
    outbox = Outbox(3, 100, 1)
    outbox.put(message("0"), 1000)
    assert taken(outbox) == ["0"]
    with pytest.raises(QueueFull, match=r"1 messages \(1000 bytes\)"):
        outbox.put(message("1"), 1)
    outbox.mark_acknowledged(0)
    for i in range(3):
        outbox.put(message(str(i)), 1)
    with pytest.raises(QueueFull, match=r"3 messages \(3 bytes\)"):
        outbox.put(Subscribe((("a", 1),)))


def test_order_is_kept_also_for_what_needs_no_window() -> None:
    outbox = Outbox(100, 1000, 1)
    for i, qos in enumerate((1, 1, 0)):
        outbox.put(message(str(i), qos), 1)
    assert taken(outbox) == ["0"]
    outbox.mark_acknowledged(0)
    assert taken(outbox) == ["1", "2"]


def test_a_closed_outbox_takes_and_gives_nothing() -> None:
    outbox = Outbox(100, 1000, 10)
    outbox.put(message("0"), 1)
    outbox.close()
    assert outbox.pop_sendable() is None
    assert not outbox.put(message("1"), 1)


@pytest.mark.parametrize("payload", [0, 100, 127, 128, 16_383, 20_000, 2_097_151, 3_000_000])
def test_the_size_of_a_packet_is_what_paho_sends(payload: int) -> None:
    """Counted by hand from MQTT 5, sections 2.2.2.2 and 3.3; the integration test asks the broker."""
    rest = 2 + 3 + 2 + 1 + (3 + 2) + (3 + 4) + 5 + payload
    length = 1 if rest < 128 else 2 if rest < 16_384 else 3 if rest < 2_097_152 else 4
    assert Publish("a/b", bytes(payload), 1, False, "rt", b"corr", 30).checked_size() == 1 + length + rest
