"""Uploads take turns, and one that only seems to send loses its place."""

from __future__ import annotations

import math

import pytest

from fl_shared.transfer.upload_scheduler import (
    GRANT_TIMEOUT,
    MAX_TIMEOUTS,
    TIME_SLICE,
    ChunkGrant,
    UploadOffer,
    UploadScheduler,
)
from tests.support.counted_lines import lines_of


def large(client: str, chunks: int = 4000, chunk_size: int = 50_000) -> UploadOffer:
    return UploadOffer(client, f"s-{client}", 1, f"d-{client}", chunks * chunk_size, chunk_size, chunks)


def clients(grants: tuple[ChunkGrant, ...]) -> set[str]:
    return {grant.offer.client for grant in grants}


def send(intake: UploadScheduler, client: str, index: int, now: float) -> None:
    intake.receive_chunk(client, 1, f"d-{client}", index, 50_000, now)


def test_who_only_drips_loses_its_place_and_others_get_it() -> None:
    """A chunk now and then keeps a place for one turn; it may not hold it longer by offering again and again."""
    for repeats in (False, True):
        intake = UploadScheduler()
        assert clients(intake.offer(large("slow"), 0.0)) == {"slow"}
        assert intake.offer(large("good"), 0.0) == ()
        now, index = 0.0, 0
        while "good" not in clients(intake.next_grants(now)):
            now += 0.5
            assert now <= TIME_SLICE
            if now % 4.5 == 0.0:
                send(intake, "slow", index, now)
                index += 1
                if repeats:
                    intake.offer(large("slow"), now)
        assert intake.progress("slow") == (index, 4000), "it keeps what it has brought"


def test_who_sends_what_was_granted_just_in_time_loses_its_place_too() -> None:
    intake = UploadScheduler()
    granted = [index for grant in intake.offer(large("slow"), 0.0) for index in grant.chunks]
    intake.offer(large("good"), 0.0)
    now, reached = 0.0, set()
    while "good" not in reached:
        now += 4.9
        assert now <= TIME_SLICE + 5
        for index in granted:
            send(intake, "slow", index, now)
        grants = intake.next_grants(now)
        reached = clients(grants)
        granted = [index for grant in grants if grant.offer.client == "slow" for index in grant.chunks]
    assert now >= TIME_SLICE, "an honest slow one has its turn"


def test_a_slow_one_goes_on_where_it_was_when_the_others_are_through() -> None:
    intake = UploadScheduler()
    intake.offer(large("slow"), 0.0)
    send(intake, "slow", 0, 0.0)
    intake.offer(large("good"), 0.0)
    intake.next_grants(6.0)
    assert "good" in clients(intake.next_grants(17.0))
    send(intake, "slow", 1, 17.0)
    assert intake.progress("slow") == (2, 4000), "what was on its way still counts"
    intake.remove("good")
    [grant] = intake.next_grants(18.0)
    assert grant.offer.client == "slow"
    assert grant.chunks[:2] == (2, 3)


@pytest.mark.parametrize("chunk_size", [50_000, 2**24])
def test_beside_one_that_sends_nothing_another_comes_in(chunk_size: int) -> None:
    """Nobody waits, so that both keep their places; but not all the room is for what does not come."""
    intake = UploadScheduler()
    intake.offer(large("silent", 8, chunk_size), 0.0)
    flying = list(intake.offer(large("good", 8, chunk_size), 0.0))
    now = 0.0
    while not intake.is_complete("good"):
        now += 0.5
        assert now < 60
        for grant in flying:
            for index in grant.chunks if grant.offer.client == "good" else ():
                intake.receive_chunk("good", 1, "d-good", index, chunk_size, now)
        flying = list(intake.next_grants(now))
    assert intake.progress("silent") == (0, 8)


def test_alone_a_slow_one_may_take_its_time() -> None:
    intake = UploadScheduler()
    intake.offer(large("slow"), 0.0)
    for second in range(0, 3000, 5):
        intake.next_grants(float(second))
        send(intake, "slow", second // 5, float(second))
    assert intake.progress("slow") == (600, 4000)
    assert intake.get("slow") is not None


@pytest.mark.parametrize("seconds", [0.84, 3.0, 9.0])
def test_6_4_what_is_on_a_slow_link_is_not_granted_twice(seconds: float) -> None:
    """Chunks of 1 MiB take 0.84 s each over 10 Mbit/s, and the first grant 13 s. After one chunk, the pace is known."""
    intake = UploadScheduler()
    flying = [index for grant in intake.offer(large("slow", 40, 2**20), 0.0) for index in grant.chunks]
    assert len(flying) == 16
    now, granted = 0.0, list(flying)
    first = min(seconds, 4.9)
    while flying:
        now += seconds if now else first
        assert not intake.next_grants(now - 0.01)
        intake.receive_chunk("slow", 1, "d-slow", flying.pop(0), 2**20, now)
        new = [index for grant in intake.next_grants(now) for index in grant.chunks]
        flying += new
        granted += new
    assert intake.is_complete("slow")
    assert granted == list(range(40))
    assert intake.overdue_grants == 0


def test_a_lost_chunk_now_and_then_costs_nobody_his_place() -> None:
    intake = UploadScheduler()
    granted = {index for grant in intake.offer(large("lossy"), 0.0) for index in grant.chunks}
    intake.offer(large("next"), 0.0)
    for step in range(1, 4):
        for index in sorted(granted)[1:]:
            send(intake, "lossy", index, step * 6.0)
        grants = intake.next_grants(step * 6.0)
        assert clients(grants) == {"lossy"}, MAX_TIMEOUTS
        granted = {index for grant in grants for index in grant.chunks}


def test_offers_that_wait_take_no_room() -> None:
    intake = UploadScheduler()
    for number in range(1000):
        intake.offer(large(str(number), chunks=200_000, chunk_size=1024), 0.0)
    rooms = [len(upload.received) for upload in intake._waiting.values()]
    assert len(rooms) >= 998
    assert sum(rooms) == 0


def test_before_it_is_due_there_is_nothing_to_grant_and_then_there_is() -> None:
    """With one offer, with one that waits, and after timeouts: so nobody has to ask periodically."""
    intake = UploadScheduler()
    assert intake.due() == math.inf
    intake.offer(large("slow"), 0.0)
    assert intake.due() == GRANT_TIMEOUT
    intake.offer(large("good"), 1.0)
    now = 0.0
    for _ in range(10):
        due = intake.due()
        assert now < due <= now + TIME_SLICE
        assert intake.next_grants(math.nextafter(due, 0.0)) == ()
        assert intake.due() == due
        assert intake.next_grants(due) != ()
        now = due


def test_a_chunk_costs_the_same_among_more_uploads() -> None:
    """Hundreds of small uploads are active at a time. Lines of Python are counted, not seconds."""

    def lines(uploads: int) -> int:
        intake = UploadScheduler()
        for number in range(uploads):
            intake.offer(large(str(number), 1), 0.0)
        intake.next_grants(0.0)

        def passes() -> None:
            send(intake, "7", 0, 0.0)
            intake.remove("7")
            assert intake.next_grants(1.0)

        return lines_of(passes)

    assert lines(900) <= 1.2 * lines(100)
