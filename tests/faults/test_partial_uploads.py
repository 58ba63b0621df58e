"""An aggregator that dies in the middle of a large upload: what had come does not travel again (protocol, 6.4)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from fl_aggregator.storage.spool import Spool
from fl_shared.protocol import messages as m
from tests.support import programs, synthetic_run
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.broker, pytest.mark.edge]

VALUES = 5_000_000
SIZE = 4 * VALUES
RATE = SIZE / 4
"""Bytes per second of the edge's upload: the second half takes longer than anybody needs to stop it."""


@pytest.mark.parametrize(
    "durability", ["process", *(pytest.param(more, marks=pytest.mark.long) for more in ("power", "memory"))]
)
def test_only_what_had_not_come_travels_again(tmp_path: Path, mosquitto: Mosquitto, durability: str) -> None:
    settings = (
        "--task", f"synthetic-{VALUES}", "--clients", "1", "--per-round", "1", "--rounds", "1", "--epochs", "1",
        "--holdout", "0", "--wait", "60", "--durability", durability,
    )  # fmt: skip
    with (
        Client(mosquitto.endpoint, "fl/#", reconnect=True) as observer,
        TcpProxy(mosquitto.port) as proxy,
        programs.edges(tmp_path / "edges", proxy.url, "0", "--role", "train") as edge,
    ):
        with programs.aggregator(tmp_path, mosquitto.url, *settings) as first:
            observer.when_message(lambda: proxy.limit(RATE), m.Selected, round=1)
            at_half = observer.when(
                lambda heard: (
                    isinstance(heard.message, m.UpdateChunk)
                    and heard.message.round == 1
                    and len(chunks(observer)) > offered(observer).chunks // 2
                ),
                proxy.stall,
            )
            assert at_half.wait(240), first.output
            first.send(signal.SIGKILL)
            first.wait(10)
            proxy.limit(None)
            proxy.flow()
        chunk_size, before = offered(observer).chunk_size, len(chunks(observer))
        had_come = 0 if durability == "memory" else found(tmp_path)
        with programs.Program(
            tmp_path, "fl-aggregator", "start", "--resume", str(tmp_path / "run"), "--keepalive", "2"
        ) as second:
            second.ends_well()
        granted = [index for grant in observer.all(m.Grant, round=1, incarnation=2) for index in grant.chunks]
    if durability == "memory":
        assert len(granted) == offered(observer).chunks, "nothing of it survives, as was said"
    else:
        assert had_come >= before // 2, "the half that was seen, but for what was still in its inbox"
        assert len(granted) == len(set(granted)) == offered(observer).chunks - had_come
        assert len(set(granted)) * chunk_size < 0.75 * SIZE
    assert synthetic_run.trainings(edge) == {0: 1, 1: 1}, "nobody was asked to train again"
    (line,) = programs.history(tmp_path)
    assert (line["outcome"], line["participants"]) == ("committed", ["0"])


def offered(observer: Client) -> m.Offer:
    return observer.all(m.Offer, round=1)[0]


def chunks(observer: Client) -> list[int]:
    """Of round 1's upload, as they passed the broker."""
    return [chunk.index for chunk in observer.all(m.UpdateChunk, round=1)]


def found(tmp_path: Path) -> int:
    """How many chunks the dead aggregator had."""
    ((client, upload),) = Spool(tmp_path / "run").partial_uploads(1)
    assert client == "0"
    count = sum(upload.received)
    upload.partial.close()
    return count
