"""Three Mosquittos as a star: the aggregator at the hub, its edges behind two bridges, one of them of MQTT 3.1.1."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from fl_aggregator.tools.provision.bridges import QUEUE, bridge_lines
from fl_aggregator.tools.remote.predict import Request, request_prediction
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.protocol import messages as m
from fl_shared.system.mosquitto import LOOPBACK
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.synthetic_run import Hold, model_sha256, trainings
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker

RUN = (
    *("--task", "synthetic-300000", "--clients", "4", "--per-round", "4", "--quorum", "4", "--rounds", "3"),
    *("--grace", "60", "--deadline", "120", "--wait", "120", "--holdout", "0"),
)
DEADLINE = 60.0


@dataclass(frozen=True)
class Star:
    hub: Mosquitto
    b: Mosquitto
    c: Mosquitto


@pytest.fixture
def star(tmp_path: Path) -> Iterator[Star]:
    with contextlib.ExitStack() as stack:

        def broker(name: str, *extra: str) -> Mosquitto:
            directory = tmp_path / f"broker-{name}"
            directory.mkdir()
            made = Mosquitto(directory, extra=[QUEUE, *extra])
            stack.callback(made.stop)
            return made

        hub = broker("hub")
        address = f"{LOOPBACK}:{hub.port}"
        newest, older = (bridge_lines(name, address, "fl", version=version)
                         for name, version in (("B", "mqttv50"), ("C", "mqttv311")))  # fmt: skip
        yield Star(hub, broker("b", *newest), broker("c", *older))


def edges(
    directory: Path, broker: Mosquitto, ids: str, *more: str, environment: Mapping[str, str] | None = None
) -> programs.Program:
    return programs.edges(directory / ids, broker.url, ids, "--workers", "1", *more, environment=environment)


def absent(observer: Client) -> set[str]:
    """Who is absent because of its broker, as watchers are told; that of the round before may come later."""
    views = max(reversed(observer.all(m.Edges)), key=lambda one: one.round).edges
    return {name for name, view in views.items() if view.reason == "its broker B is not connected"}


def test_a_broker_that_dies_in_a_round_takes_its_edges_with_it_and_changes_no_bit(
    tmp_path: Path, star: Star
) -> None:
    alone = ("--prefix", "alone")  # it crosses no bridge
    with (
        edges(tmp_path / "alone", star.hub, "0-3", *alone),
        programs.aggregator(tmp_path / "alone", star.hub.url, *RUN, *alone) as undisturbed,
    ):
        undisturbed.ends_well()
    hold = Hold(tmp_path, 2)
    with (
        Client(star.hub.endpoint, "fl/#") as observer,
        edges(tmp_path, star.b, "0-1", "--via", "B", environment=hold.environment) as behind_b,
        edges(tmp_path, star.c, "2-3", "--via", "C") as behind_c,
    ):
        with programs.aggregator(tmp_path, star.hub.url, *RUN) as run:
            hold.wait(observer)
            star.b.kill()
            killed_at = time.monotonic()
            wait_until(lambda: absent(observer) == {"0", "1"}, DEADLINE, "its edges are absent")
            star.b.start()
            for client in ("0", "1"):
                observer.wait_for_message(m.Registration, DEADLINE, after=killed_at, client=client)
            hold.release()
            run.ends_well()
        assert model_sha256(tmp_path) == model_sha256(tmp_path / "alone")
        assert trainings(behind_b, behind_c) == {1: 4, 2: 4, 3: 4} | {0: 1}
        assert "the bridge of broker B is lost: edges 0, 1 count as offline" in run.err
        assert not re.search(r"foreign|refused a message", run.err), "a bridge brings back only what is ours"

        reach = BrokerAccess(star.hub.address)
        asked_c = request_prediction(reach, Request(b"{}", "fl", client="2"), DEADLINE)
        assert asked_c.client == "2", "though its bridge drops the Response Topic"
        assert request_prediction(reach, Request(b"{}", "fl"), DEADLINE).client in "0123"
