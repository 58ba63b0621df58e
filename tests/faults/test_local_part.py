"""What ``--keep-local`` keeps on the edges never travels, and is the same whichever side is killed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

from fl_edge.training.local_part import LOCAL
from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.batchnorm_task import NAME, OF_BATCHNORM
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.killed_in_turns import killed_in_turns
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

EDGES, ROUNDS = 2, 9
RUN = (
    "--task", NAME, "--clients", str(EDGES), "--rounds", str(ROUNDS), "--epochs", "3", "--grace", "120",
    "--deadline", "120", "--wait", "120", "--keep-local", "batchnorm", "--partition", "shards",
)  # fmt: skip
SHARED = ["first.bias", "first.weight", "last.bias", "last.weight"]


def test_it_never_travels(tmp_path: Path) -> None:
    with broker_in(tmp_path) as broker, Client(broker.endpoint, "#") as spy:
        kept = undisturbed(tmp_path, broker)
        check_nothing_travelled(spy, kept)
    assert not np.array_equal(kept["0"], kept["1"]), "each has its own"
    assert {line["split"] for line in programs.history(tmp_path)} == {"holdout"}


@pytest.mark.long
def test_it_is_the_same_after_kills_of_either_side(tmp_path: Path) -> None:
    whole, killed = tmp_path / "undisturbed", tmp_path / "killed"
    with broker_in(whole) as broker:
        kept = undisturbed(whole, broker)
    with (
        broker_in(killed) as broker,
        killed_in_turns(killed, broker.url, RUN, partial(edges, killed, broker), (2, 4, 6)),
    ):
        again = wait_until(partial(local_parts, killed), 60, "the edges to keep what has counted")
    assert all(np.array_equal(again[client], kept[client]) for client in kept)
    ours, theirs = (programs.history(where)[-1]["digest"] for where in (whole, killed))
    assert ours == theirs


def undisturbed(directory: Path, broker: Mosquitto) -> dict[str, NDArray[np.float32]]:
    """Does a run, and returns what the edges have kept at its end."""
    with edges(directory, broker), programs.aggregator(directory, broker.url, *RUN) as run:
        run.ends_well(240)
        return wait_until(partial(local_parts, directory), 60, "the edges to keep what has counted")


@contextlib.contextmanager
def broker_in(directory: Path) -> Iterator[Mosquitto]:
    (directory / "broker").mkdir(parents=True)
    broker = Mosquitto(directory / "broker")
    try:
        yield broker
    finally:
        broker.stop()


def edges(directory: Path, broker: Mosquitto) -> programs.Program:
    return programs.edges(directory / "edges", broker.url, f"0-{EDGES - 1}", "--task", NAME)


def local_parts(directory: Path) -> dict[str, NDArray[np.float32]] | None:
    """What the edges have kept with the last version; null as long as one has not."""
    found = {}
    for client in map(str, range(EDGES)):
        path = directory / "edges" / "state" / client / "own.safetensors"
        if not path.exists():
            return None
        with safe_open(path, framework="numpy") as file:
            if json.loads(file.metadata()["state"])["round"] != ROUNDS:
                return None
            found[client] = file.get_tensor(LOCAL)
    return found


def check_nothing_travelled(spy: Client, kept: dict[str, NDArray[np.float32]]) -> None:
    """Only registrations name an array that stays, and no message has the values that an edge has kept at the end."""
    manifests = 0
    for message in spy.received:
        match message.message:
            case m.Update(sections=sections) | m.ModelManifest(sections=sections):
                for section in sections:
                    assert section.arrays is None or [one.name for one in section.arrays] == SHARED
                    manifests += section.arrays is not None
        for name in OF_BATCHNORM:
            assert name.encode() not in message.payload or isinstance(message.message, m.Registration)
        for local in kept.values():
            for start in range(0, len(local) - 4, 4):
                assert local[start : start + 4].tobytes() not in message.payload
    assert manifests > ROUNDS
