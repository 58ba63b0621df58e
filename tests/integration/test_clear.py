"""``fl-aggregator clear`` against a real broker: all that is retained under a prefix is gone, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.simulated_aggregator import retain_birth
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]


def clear(broker: Mosquitto, prefix: str, *arguments: str) -> tuple[int, str]:
    done = programs.run("fl-aggregator", "clear", "--broker", broker.url, "--prefix", prefix, *arguments)
    return done.returncode, done.stdout + done.stderr


def retained(broker: Mosquitto, *filters: str) -> set[str]:
    with Client(broker.endpoint, *filters) as later:
        later.catch_up()
        return set(later.retained)


def test_all_that_a_run_has_left_is_cleared(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    prefix, url = "cleared/run", shared_mosquitto.url
    run = ("--task", "synthetic-50", "--clients", "1", "--per-round", "1", "--holdout", "0")
    edge = ("--prefix", prefix, "--task", "synthetic-50")
    with programs.edges(tmp_path / "edges", url, "0", *edge):
        with programs.aggregator(tmp_path, url, "--prefix", prefix, *run, "--rounds", "100000") as aggregator:
            wait_until(lambda: "round 2: version" in aggregator.err, 60, "two rounds")
            code, said = clear(shared_mosquitto, prefix, "--yes")
            assert (code, "is online under the prefix 'cleared/run'" in said) == (2, True), said
            assert "fl-aggregator stop" in said
        with Client(shared_mosquitto.endpoint, prefix=prefix) as others:
            gone = m.ClientPresence(client="gone", state="online", session="x")
            others.publish(t.PresenceTopic("gone"), gone, retain=True)
            others.publish(f"{prefix}/note", b"of nobody", retain=True)
            others.publish("cleared/neighbour", b"stays", retain=True)
        before = retained(shared_mosquitto, f"{prefix}/#")
        assert len(before) > 8

        code, said = clear(shared_mosquitto, prefix)
        assert (code, "add --yes" in said) == (2, True), said
        assert retained(shared_mosquitto, f"{prefix}/#") == before, "it only says what there is"
        assert f"2 {prefix}/clients/<client>/presence" in said
        assert f"1 of other programs: {prefix}/note" in said

        code, said = clear(shared_mosquitto, prefix, "--yes")
        assert code == 0, said
        assert f"cleared {len(before)} topics; still online, so their presence stays: 0" in said
        assert retained(shared_mosquitto, "cleared/#") == {
            f"{prefix}/clients/0/presence",
            "cleared/neighbour",
        }
    code, said = clear(shared_mosquitto, prefix, "--yes")
    assert (code, "cleared 1 topic" in said) == (0, True), said
    code, said = clear(shared_mosquitto, prefix, "--yes")
    assert (code, "nothing is retained under the prefix" in said) == (0, True), said


def test_a_birth_whose_aggregator_is_dead_keeps_nobody_from_clearing(shared_mosquitto: Mosquitto) -> None:
    """The broker was killed together with the aggregator, so that there is no will."""
    retain_birth(shared_mosquitto.endpoint, "cleared/ghost")
    code, said = clear(shared_mosquitto, "cleared/ghost", "--yes")
    assert (code, "cleared 1 topic" in said) == (0, True), said
    assert not retained(shared_mosquitto, "cleared/ghost/#")
