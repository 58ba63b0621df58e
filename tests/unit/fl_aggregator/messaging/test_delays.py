"""Edges that say that messages do not arrive are named in the log and in the line of their round."""

from __future__ import annotations

from typing import Literal

import pytest

from fl_aggregator.messaging.delays import Delays
from fl_shared.protocol import messages as m


def delayed(client: str, number: int | None, awaits: Literal["model", "answer"] = "answer") -> m.Delayed:
    return m.Delayed(
        run="R", incarnation=1, seq=1, client=client, session="s", round=number, awaits=awaits
    )  # fmt: skip


def test_the_log_names_the_edge_what_it_waits_for_and_the_settings(caplog: pytest.LogCaptureFixture) -> None:
    delays = Delays()
    delays.add(delayed("7", 3), 3)
    delays.add(delayed("8", 3, "model"), 3)
    first, second = caplog.messages
    assert first.startswith("edge 7 still waits for an answer to its update (1 so far): ")
    assert second.startswith("edge 8 still waits for parts of the model (1 so far): ")
    assert all("max_queued_messages" in line and "message_size_limit" in line for line in caplog.messages)


def test_the_log_stays_short_however_often_they_say_so(caplog: pytest.LogCaptureFixture) -> None:
    delays = Delays()
    for _ in range(1000):
        delays.add(delayed("7", 3), 3)
    assert len(caplog.messages) == 4, "1, 10, 100, 1000"


def test_a_round_names_those_of_its_own_time() -> None:
    delays = Delays()
    for client, number in (("7", 3), ("7", 3), ("8", None), ("9", 2)):
        delays.add(delayed(client, number), 3)
    delays.add(delayed("7", 3), None)
    assert delays.clients(3) == {"7", "8"}
    assert delays.clients(2) == set()


def test_only_the_last_rounds_are_remembered() -> None:
    delays = Delays()
    for number in range(100):
        delays.add(delayed("7", number), number)
    assert [number for number in range(100) if delays.clients(number)] == [96, 97, 98, 99]
