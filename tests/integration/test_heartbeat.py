"""``fl-edge --heartbeat``: the file that a container's health check looks at, with a real broker and without."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fl_edge.runtime.heartbeat import BEAT_INTERVAL, Heartbeat
from fl_shared.errors import UserError
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.fuzz.edge_harness import EdgeHarness
from tests.support.wait import wait_until


@pytest.mark.broker
def test_it_beats_while_an_edge_has_its_broker(tmp_path: Path, mosquitto: Mosquitto) -> None:
    file = tmp_path / "alive"
    file.touch()  # of an earlier life
    mosquitto.kill()
    arguments = ("--task", "synthetic-50", "--heartbeat", str(file))
    with programs.edges(tmp_path / "edges", mosquitto.url, "0-2", *arguments) as fleet:
        wait_until(lambda: "no broker" in fleet.err, 20, "it says that there is no broker")
        assert not file.exists()
        mosquitto.start()
        wait_until(file.exists, 20, "a heartbeat")
        assert fleet.running()


def test_it_falls_silent_without_a_broker_and_beats_again_with_one(tmp_path: Path) -> None:
    """The loop of two edges, second by second."""
    file = tmp_path / "alive"
    harness = EdgeHarness(tmp_path, seed=0, heartbeat=file)

    def beats(seconds: int) -> int:
        """In so many seconds."""
        count = 0
        for _ in range(seconds):
            harness.now += 1.0
            harness.turn()
            count += file.exists()
            file.unlink(missing_ok=True)
        return count

    try:
        assert beats(60) == 60 // BEAT_INTERVAL
        harness.lose_broker()
        assert beats(60) == 0
        harness.find_broker()
        assert beats(60) == 60 // BEAT_INTERVAL
        harness.reconnect()
        assert beats(60) == 60 // BEAT_INTERVAL, "the other edge has its connection, and this one has it back"
    finally:
        harness.close()


def test_a_file_that_cannot_be_is_a_mistake(tmp_path: Path) -> None:
    arguments = ("--task", "synthetic-50", "--heartbeat", str(tmp_path / "none" / "alive"))
    with programs.edges(tmp_path / "edges", "mqtt://127.0.0.1:1", "0", *arguments) as edge:
        assert edge.wait(20) == 2, edge.output
    assert f"--heartbeat {tmp_path}/none/alive: cannot be written to: No such file" in edge.err
    with pytest.raises(UserError, match="cannot be written to"):
        Heartbeat(tmp_path, 0.0)


def test_it_touches_the_file_every_five_seconds_only(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    heart = Heartbeat(file, 100.0)
    assert not file.exists()
    heart.beat(100.0)
    assert file.exists()
    file.unlink()
    heart.beat(100.0 + BEAT_INTERVAL - 0.1)
    assert not file.exists()
    heart.beat(100.0 + BEAT_INTERVAL)
    assert file.exists()


def test_a_directory_that_vanishes_is_said_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    heart = Heartbeat(place / "alive", 0.0)
    place.rmdir()
    with caplog.at_level(logging.WARNING):
        for second in range(60):
            heart.beat(float(second))
        assert len(caplog.records) == 1
        place.mkdir()
        heart.beat(100.0)
        assert (place / "alive").exists()
        (place / "alive").unlink()
        place.rmdir()
        heart.beat(200.0)
    assert len(caplog.records) == 2
