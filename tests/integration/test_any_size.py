"""Chunked transfers: small limits of brokers, many edges, a broker's death (protocol, 3.6 and section 6)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]


@pytest.mark.parametrize(
    ("edges", "extra"),
    [
        (25, ""),
        *(
            pytest.param(100, more, marks=pytest.mark.long)
            for more in ("", "max_packet_size 131072", "max_queued_messages 100")
        ),
    ],
)
def test_many_edges_of_two_megabytes(tmp_path: Path, edges: int, extra: str) -> None:
    """No broker's limit costs an update, and none is sent twice by training twice."""
    broker = Mosquitto(tmp_path, extra=[extra] if extra else [])
    settings = (
        "--task",
        "synthetic-500000",
        "--clients",
        str(edges),
        "--per-round",
        str(edges),
        "--rounds",
        "1",
        "--epochs",
        "1",
    )
    try:
        with (
            programs.edges(tmp_path / "edges", broker.url, f"0-{edges - 1}", "--role", "train") as fleet,
            programs.aggregator(tmp_path, broker.url, *settings, "--holdout", "0", "--wait", "60") as run,
        ):
            run.ends_well(110)
            assert fleet.running()
    finally:
        broker.stop()
    (line,) = programs.history(tmp_path)
    assert line["outcome"] == "committed"
    assert len(line["participants"]) == edges
    assert line["missing"] == {}
    # Every byte once, give or take an envelope: nothing had to be sent again.
    assert line["bytes"]["up"] == pytest.approx(edges * 2_000_000, rel=0.05)
    assert fleet.err.count("trained in") == edges + 1, "first weights, and an update each"


@pytest.mark.long
def test_an_upload_goes_on_where_a_dying_broker_broke_it_off(tmp_path: Path, mosquitto: Mosquitto) -> None:
    settings = (
        "--task",
        "synthetic-30000000",
        "--clients",
        "2",
        "--per-round",
        "2",
        "--rounds",
        "1",
        "--epochs",
        "1",
    )
    with (
        programs.edges(tmp_path / "edges", mosquitto.url, "0-1", "--role", "train") as fleet,
        programs.aggregator(tmp_path, mosquitto.url, *settings, "--holdout", "0", "--wait", "60") as run,
    ):
        spool = tmp_path / "run" / "spool" / "1"
        wait_until(lambda: list(spool.glob("*.part")), 60, "an upload")
        time.sleep(0.1)
        mosquitto.kill()
        time.sleep(0.5)
        mosquitto.start()
        run.ends_well(110)
    (line,) = programs.history(tmp_path)
    assert line["participants"] == ["0", "1"]
    assert line["missing"] == {}
    assert fleet.err.count("trained in") == 3, "nobody was asked to train again"
    # 240 MB of updates, of which at most what was on its way came twice.
    assert line["bytes"]["up"] < 2 * 120e6 + 128 * 2**20
