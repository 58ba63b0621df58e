"""A broker that silently drops messages: the run says so soon, with the names of the settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

SETTINGS = ("--clients", "1", "--per-round", "1", "--rounds", "2", "--holdout", "0", "--chunk", "65536")


def test_messages_that_are_too_large_are_said_and_end_no_connection(tmp_path: Path) -> None:
    broker, task = Mosquitto(tmp_path, extra=["message_size_limit 20000"]), ("--task", "synthetic-2000000")
    try:
        with (
            programs.edges(tmp_path / "edges", broker.url, "0", *task, "--chunk", "65536") as fleet,
            programs.aggregator(tmp_path, broker.url, *SETTINGS, *task) as run,
        ):
            said = re.compile(r"\(0x95, 1 so far\), [\d.]+ kB: raise message_size_limit")
            wait_until(lambda: said.search(fleet.err), 60, "why")
            wait_until(
                lambda: "chunks that edges may send have not arrived" in run.err, 60, "what is missing"
            )
        assert "no broker" not in fleet.err
        assert "message_size_limit" in run.err
    finally:
        broker.stop()


def test_messages_that_do_not_fit_into_a_queue_are_said(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path, extra=["max_queued_messages 1", "max_inflight_messages 1"])
    task = ("--task", "synthetic-500000")
    try:
        with (
            programs.edges(tmp_path / "edges", broker.url, "0", *task) as fleet,
            programs.aggregator(tmp_path, broker.url, *SETTINGS, *task) as run,
        ):
            wait_until(
                lambda: "parts of the model have not arrived" in fleet.err, 120, f"what is missing {run.err}"
            )
        assert "max_queued_messages" in fleet.err
    finally:
        broker.stop()
