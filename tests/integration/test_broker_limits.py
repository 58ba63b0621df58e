"""A broker that silently drops messages: the log of the run says so soon, with the names of the settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

SETTINGS = ("--clients", "1", "--per-round", "1", "--rounds", "2", "--holdout", "0", "--chunk", "65536")
MISSING = "the broker drops messages (max_queued_messages, max_queued_bytes or message_size_limit"


def test_chunks_of_updates_that_are_too_large_are_said_and_end_no_connection(tmp_path: Path) -> None:
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
        assert MISSING in run.err
    finally:
        broker.stop()


def test_an_update_that_is_too_large_in_one_piece_is_said_and_offered_in_chunks(tmp_path: Path) -> None:
    broker, task = Mosquitto(tmp_path, extra=["message_size_limit 100000"]), ("--task", "synthetic-100000")
    try:
        with (
            programs.edges(tmp_path / "edges", broker.url, "0", *task, "--chunk", "65536") as fleet,
            programs.aggregator(tmp_path, broker.url, *SETTINGS, *task, "--rounds", "1") as run,
        ):
            run.ends_well()
        assert (
            "fl/updates/0: Packet too large (0x95, 1 so far), 400 kB: raise message_size_limit" in fleet.err
        )
        assert "edge 0 still waits for an answer to its update (1 so far)" in run.err
        assert MISSING in run.err
        assert "kB down; messages to or from 0 were late or lost" in run.err, "the line of the round"
    finally:
        broker.stop()


@pytest.mark.long
def test_parts_of_the_model_that_are_too_large_are_said(tmp_path: Path) -> None:
    broker, task = Mosquitto(tmp_path, extra=["message_size_limit 100000"]), ("--task", "synthetic-100000")
    try:
        with (
            programs.edges(tmp_path / "edges", broker.url, "0", *task, "--chunk", "65536"),
            programs.aggregator(tmp_path, broker.url, *SETTINGS, *task, "--chunk", "262144") as run,
        ):
            refused = re.compile(
                r"fl/model/\S+: Packet too large \(0x95, \d+ so far\), 26\d kB: raise message_size"
            )
            wait_until(lambda: refused.search(run.err), 60, run.err)
            wait_until(lambda: "edge 0 still waits for parts of the model" in run.err, 60, "who waits")
        assert MISSING in run.err
    finally:
        broker.stop()


def test_parts_of_the_model_that_do_not_fit_into_a_queue_are_said(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path, extra=["max_queued_messages 1", "max_inflight_messages 1"])
    task = ("--task", "synthetic-500000")
    try:
        with (
            programs.edges(tmp_path / "edges", broker.url, "0", *task) as fleet,
            programs.aggregator(tmp_path, broker.url, *SETTINGS, *task) as run,
        ):
            wait_until(lambda: "parts of the model have not arrived" in fleet.err, 60, "what is missing")
            wait_until(lambda: "edge 0 still waits for parts of the model" in run.err, 60, "who waits")
        assert MISSING in fleet.err
        assert MISSING in run.err
    finally:
        broker.stop()
