"""``fl-edge --heartbeat``: the file that a container's health check looks at, with a real broker and without."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from fl_edge.runtime.heartbeat import BEAT_INTERVAL, Heartbeat
from fl_shared.errors import UserError
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.wait import wait_until

LATE = BEAT_INTERVAL + 3.0


def age(file: Path) -> float:
    return time.time() - file.stat().st_mtime


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
        first = file.stat().st_mtime
        wait_until(lambda: file.stat().st_mtime > first, LATE, "another one")
        mosquitto.kill()
        wait_until(lambda: age(file) > LATE, 30, "it falls silent without a broker")
        assert fleet.running()
        mosquitto.start()
        wait_until(lambda: age(file) < 2, 20, "it beats again")


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
