"""Requests for predictions reach those who answer them, whoever else listens or asks; on a provisioned Mosquitto."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_shared.security.kit import AccountRole, Kit
from tests.support.client import Client, Endpoint
from tests.support.programs import Program
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.timeout(480)]

REQUESTS = 20
TASK = "synthetic-1000"
"""It predicts nothing, and says so: that is an answer, too."""
WANTED: list[tuple[str, tuple[AccountRole, ...]]] = [
    ("0", ("train", "predict")),
    ("bad", ("train",)),
    ("kiosk", ("asker",)),
]


@contextlib.contextmanager
def predicting(tmp_path: Path) -> Iterator[tuple[Program, Client, Client]]:
    """An edge that answers, an account gone bad that may not, and one that asks."""
    made = provisioned(tmp_path / "kits", WANTED)
    with ProvisionedBroker(made):
        settings = ("--task", TASK, "--clients", "1", "--per-round", "1", "--rounds", "1", "--holdout", "0")
        run = Program(
            tmp_path / "aggregator", "fl-aggregator", "start", "--kit", str(tmp_path / "kits" / "aggregator.zip"),
            "--run-dir", str(tmp_path / "run"), "--keepalive", "2", *settings,
        )  # fmt: skip
        edge = Program(
            tmp_path / "edge", "fl-edge", "--kit", str(tmp_path / "kits" / "edge-0.zip"),
            "--state-dir", str(tmp_path / "state"), "--keepalive", "2", "--task", TASK, "-vv",
        )  # fmt: skip
        with (
            run,
            edge,
            Client(Endpoint.of(kit_of(made, "bad"))) as bad,
            Client(Endpoint.of(kit_of(made, "kiosk"))) as asker,
        ):
            run.ends_well(60)
            asker.subscribe("fl/predictions")
            yield edge, bad, asker
        group = kit_of(made, "0").predict_group
        assert group is not None
        for directory in (tmp_path / "aggregator", tmp_path / "edge", tmp_path / "run", tmp_path / "state"):
            for file in directory.rglob("*"):
                assert not file.is_file() or group.encode() not in file.read_bytes(), file


def answered(asker: Client, request: bytes, attempts: int = 1) -> bool:
    """Whether that very request was."""
    digest = hashlib.sha256(request).hexdigest()
    for _ in range(attempts):
        asker.publish("fl/predict", request)
        with contextlib.suppress(AssertionError):
            while True:
                if json.loads(asker.take(timeout=5.0).payload)["sha256"] == digest:
                    return True
    return False


def test_who_may_not_read_requests_cannot_swallow_them(tmp_path: Path) -> None:
    """Mosquitto grants every filter, and deals requests to whoever is in a share group: so its name is a secret."""
    with predicting(tmp_path) as (edge, bad, asker):
        assert answered(asker, b"the first", attempts=6), edge.output
        for name in ("predictors", "0", "predict", "fl"):
            bad.subscribe(f"$share/{name}/fl/predict")
        lost = [n for n in range(REQUESTS) if not answered(asker, f"request {n}".encode())]
        assert lost == [], edge.output
        assert not bad.received


def test_a_flood_of_requests_does_not_silence_the_edge(tmp_path: Path) -> None:
    """It answers what it can, tells of its limit once in a while, and goes on."""
    with predicting(tmp_path) as (edge, _, asker):
        assert answered(asker, b"the first", attempts=6), edge.output
        flood = 5000
        for number in range(flood):
            asker.send("fl/predict", f"request {number}".encode(), qos=0)
        asker.publish("fl/predict", b"the last of them")
        assert answered(asker, b"after the flood", attempts=6), edge.output
        assert "refusing prediction requests: requests: expected at most 200 per second" in edge.err
        assert len(edge.err.splitlines()) < flood / 2
        assert edge.running()


def test_a_retained_request_does_not_stay_at_the_broker(tmp_path: Path) -> None:
    """Otherwise the broker would keep up to 16 MiB on each topic for ever."""
    with predicting(tmp_path) as (edge, _, asker):
        assert answered(asker, b"the first", attempts=6), edge.output
        operator = Endpoint.of(Kit.read(tmp_path / "kits" / "operator.zip"))
        with Client(operator, "fl/predict/#") as witness:
            for topic in ("fl/predict", "fl/predict/0"):
                asker.publish(topic, b"retained", retain=True)
            witness.wait_for(lambda one: (one.topic, one.payload) == ("fl/predict", b""), "its clearing")
            witness.wait_for(lambda one: (one.topic, one.payload) == ("fl/predict/0", b""), "its clearing")
        with Client(operator, "fl/predict/#") as witness:
            asker.publish("fl/predict", b"a later one")
            first = witness.take()
            assert (first.payload, first.retained) == (b"a later one", False)
        assert answered(asker, b"after it", attempts=6), edge.output
