"""What waits for a fleet's thread is bounded; what happens in the program itself is never lost."""

from __future__ import annotations

import queue
import threading

import pytest

from fl_edge.runtime.inbox import MAX_PREDICTION_BYTES, MAX_PREDICTION_REQUESTS, OVERHEAD, Inbox


def test_messages_over_the_bound_are_dropped_and_counted() -> None:
    inbox: Inbox[str] = Inbox(max_bytes=10 * (100 + OVERHEAD))
    for number in range(15):
        inbox.put(f"message {number}", 100)
    inbox.put("a job is done")
    assert [inbox.get(1.0) for _ in range(11)] == [*(f"message {n}" for n in range(10)), "a job is done"]
    assert inbox.pop_dropped() == 5
    assert inbox.pop_dropped() == 0
    inbox.put("there is room again", 100)
    assert inbox.get(1.0) == "there is room again"
    with pytest.raises(queue.Empty):
        inbox.get(0.01)


def test_one_message_may_always_wait_however_large() -> None:
    inbox: Inbox[str] = Inbox(max_bytes=100)
    inbox.put("large", 10**9)
    inbox.put("another", 1)
    assert inbox.get(1.0) == "large"
    inbox.put("small", 1)
    assert inbox.get(1.0) == "small"
    assert inbox.pop_dropped() == 1


def test_many_small_messages_are_not_for_nothing() -> None:
    inbox: Inbox[int] = Inbox(max_bytes=100 * OVERHEAD)
    for number in range(1000):
        inbox.put(number, 0)
    assert inbox.pop_dropped() == 900


def test_the_count_holds_when_many_put_at_once() -> None:
    inbox: Inbox[int] = Inbox(max_bytes=10**9)

    def fill() -> None:
        for number in range(2000):
            inbox.put(number, 10)

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(8000):
        inbox.get(10.0)
    for thread in threads:
        thread.join()
    inbox.put(1, 10**9 - OVERHEAD)  # fits only if nothing is left of the others
    inbox.put(2, 0)
    assert inbox.pop_dropped() == 1


def test_requests_for_predictions_leave_room_for_what_an_edge_lives_by() -> None:
    inbox: Inbox[str] = Inbox(max_bytes=100 * OVERHEAD)
    for number in range(MAX_PREDICTION_REQUESTS + 50):
        inbox.put(f"request {number}", 10, is_prediction_request=True)
    assert inbox.pop_dropped() == 50
    for number in range(50):
        inbox.put(f"message {number}", 10)
    assert inbox.pop_dropped() == 0
    taken = [inbox.get(1.0) for _ in range(MAX_PREDICTION_REQUESTS + 50)]
    assert taken[:2] == ["request 0", "request 1"]
    assert taken[-1] == "message 49"
    inbox.put("the only one", 2 * MAX_PREDICTION_BYTES, is_prediction_request=True)
    inbox.put("one more", 10, is_prediction_request=True)
    assert inbox.pop_dropped() == 1
    assert inbox.get(1.0) == "the only one"
    inbox.put("there is room again", 10, is_prediction_request=True)
    assert inbox.get(1.0) == "there is room again"
    assert inbox.pop_dropped() == 0
