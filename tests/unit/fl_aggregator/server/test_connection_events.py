"""What is logged of connections that are lost, without a broker."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fl_aggregator.server import connection_events
from fl_shared.mqtt import events as mqtt


def test_of_a_broker_that_stays_away_ever_fewer_attempts_are_named(caplog: pytest.LogCaptureFixture) -> None:
    idle = cast("Any", SimpleNamespace(updates_connection_lost=lambda: None))
    for failures in range(40):
        for name in ("control", "updates"):
            connection_events.apply(idle, idle, name, mqtt.Lost(f"attempt {failures}", failures), 0.0)
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    named = [int(record.getMessage().partition("attempt ")[2].partition(";")[0]) for record in warned]
    assert named[::2] == named[1::2] == [0, 1, 2, 4, 8, 16, 32]
