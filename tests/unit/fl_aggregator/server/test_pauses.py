"""One notion of a pause with two causes, which may overlap: the run's time stands still while there is any."""

from __future__ import annotations

from fl_aggregator.server.pauses import Pauses


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def seen(pauses: Pauses) -> tuple[str | None, float]:
    return pauses.reason, pauses.without_pauses()


def test_time_stands_still_from_the_first_cause_to_the_end_of_the_last() -> None:
    clock = Clock()
    pauses = Pauses(clock)
    clock.now = 110.0
    assert seen(pauses) == (None, 110.0)
    pauses.begin("operator", "by the operator")
    clock.now = 120.0
    pauses.begin("disk", "disk full: needs 1 MB")
    pauses.begin("disk", "disk full: needs 2 MB")
    clock.now = 130.0
    assert seen(pauses) == ("by the operator; disk full: needs 2 MB", 110.0)
    pauses.end("operator")
    clock.now = 140.0
    assert seen(pauses) == ("disk full: needs 2 MB", 110.0)
    pauses.end("disk")
    clock.now = 145.0
    assert seen(pauses) == (None, 115.0)


def test_the_end_of_what_has_not_begun_changes_nothing() -> None:
    clock = Clock()
    pauses = Pauses(clock)
    pauses.end("disk")
    clock.now = 101.0
    pauses.begin("disk", "disk full")
    pauses.end("operator")
    clock.now = 105.0
    assert seen(pauses) == ("disk full", 101.0)
