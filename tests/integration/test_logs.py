"""``fl-aggregator logs``: what an edge says, read from elsewhere, on a real Mosquitto (protocol, section 12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client, Endpoint
from tests.support.programs import Program
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned
from tests.support.provisioned_site import FORGER, Site
from tests.support.schemas import checked
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker

TASK = "synthetic-50"


def test_12_lines_of_an_edge_that_does_not_seal(tmp_path: Path, mosquitto: Mosquitto) -> None:
    reach = ("--broker", mosquitto.url)
    topic = t.build("fl", t.LogTopic("0"))
    with (
        Client(mosquitto.endpoint, "fl/clients/+/log", "fl/clients/+/log-request") as listener,
        programs.edges(tmp_path / "edges", mosquitto.url, "0-1", "--task", TASK) as fleet,
        programs.edges(tmp_path / "shy", mosquitto.url, "shy", "--task", TASK, "--no-remote-log") as shy,
    ):
        wait_until(
            lambda: "connected to" in shy.err and fleet.err.count("connected to") == 2, 60, "all edges"
        )
        assert listener.received == [], "12.1: nobody has asked"
        once = programs.run("fl-aggregator", "logs", "0", "--json", *reach, cwd=tmp_path)
        assert once.returncode == 0, once.stderr
        [line] = [checked("fl-aggregator logs", text) for text in once.stdout.splitlines()]
        assert (line["level"], line["text"]) == ("info", f"connected to {mosquitto.url}, prefix fl")
        refused = programs.run("fl-aggregator", "logs", "shy", *reach, cwd=tmp_path)
        assert refused.returncode == 1
        assert "edge shy sends no lines: its user does not allow that (--no-remote-log)" in refused.stderr
        silent = programs.run("fl-aggregator", "logs", "nobody", "--wait", "1", *reach, cwd=tmp_path)
        assert (silent.returncode, "edge nobody has not answered within 1.0 s" in silent.stderr) == (1, True)
        following = ("--follow", "--recent", "0")
        with Program(tmp_path / "reader", "fl-aggregator", "logs", "0", *following, *reach) as reader:
            listener.expect(m.LogRequest, recent=0)
            plan = ("--task", TASK, "--clients", "3", "--per-round", "3", "--quorum", "3", "--rounds", "1")
            with programs.aggregator(tmp_path, mosquitto.url, *plan) as run:
                run.ends_well()
            wait_until(lambda: "round 1: accepted" in reader.out, 60, "a line that the edge has just logged")
            assert "connected to" not in reader.out, "of the past"
        heard = [one for one in listener.received if one.topic == topic]
    assert not any(one.retained for one in heard)
    lines = [codec.decode(t.LogTopic("0"), one.payload) for one in heard]
    assert all(isinstance(one, m.LogLines) and one.client == "0" for one in lines)


def test_an_edge_that_has_left_is_not_waited_for(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Its retained presence says so: with ``--wait 600``, a version that ignores that would be ended by the test."""
    reach, gone = ("--broker", mosquitto.url, "--wait", "600"), t.PresenceTopic("gone")
    with Client(mosquitto.endpoint) as client:
        for reason, text in (("SIGTERM", "SIGTERM"), (None, "it was lost, or has not said why it left")):
            presence = m.ClientPresence(client="gone", state="offline", session="s", reason=reason)
            client.publish(gone, presence, retain=True)
            found = programs.run("fl-aggregator", "logs", "gone", *reach, cwd=tmp_path)
            assert (found.returncode, found.stderr) == (1, f"fl-aggregator: edge gone is offline: {text}\n")


def test_12_4_the_lines_of_an_edge_that_seals(tmp_path: Path) -> None:
    made = provisioned(tmp_path / "kits", [("0", ("train",)), ("1", ("train",)), ("forger", ("asker",))])
    with ProvisionedBroker(made, extra_acl=FORGER) as broker:
        site = Site(tmp_path, made, broker)
        edge = site.edge("0", "--seal")
        wait_until(lambda: "connected to" in edge.err, 60, "the edge")
        with Client(Endpoint.of(kit_of(made, "forger")), "fl/clients/0/log") as listener:
            found = programs.run("fl-aggregator", "logs", "0", "--kit", site.kit("operator"), cwd=tmp_path)
            assert found.returncode == 0, found.stderr
            assert "connected to mqtts://" in found.stdout
            assert all(codec.is_sealed(one.payload) for one in listener.received)
            assert not any(b"connected" in one.payload for one in listener.received)
            # Whoever can write to the topic gets no line in plain text.
            request = m.LogRequest(client="0", reader="me", level="info", recent=10, seconds=5)
            listener.send(t.LogRequestTopic("0"), request)
            answer = listener.expect(m.LogLines, reader="me")
            assert (answer.refused, answer.lines) == ("needs-operator-kit", ())
        site.close()
