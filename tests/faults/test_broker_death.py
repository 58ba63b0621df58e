"""Mosquitto is killed and started again in every phase of a run, and forgets everything, or remembers what is stale."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.connections import Connections
from fl_aggregator.messaging.inbox import AdmittedMessage, Inbox
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m
from fl_shared.protocol.envelope import EnvelopeSource
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.programs import freeze, thaw, workers
from tests.support.synthetic_run import TASK, model_sha256, settings, trainings
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(480)]

DOWN = 0.3
"""Seconds that the broker is gone: long enough for everyone to try, and fail."""


@pytest.fixture(params=[pytest.param("forgetful", marks=pytest.mark.long), "persistent"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mosquitto]:
    """A persistent one, too, has forgotten everything until it has saved what it knows (SIGUSR1)."""
    directory = tmp_path / "broker"
    directory.mkdir()
    memory = ["persistence true", f"persistence_location {directory}/"]
    made = Mosquitto(directory, extra=memory if request.param == "persistent" else ())
    yield made
    with contextlib.suppress(AssertionError):
        made.thaw()
    made.stop()


def edges(directory: Path, broker: Mosquitto, ids: str, *arguments: str) -> programs.Program:
    return programs.edges(directory / ids, broker.url, ids, "--task", TASK, "--workers", "1", *arguments)


def die_and_come_back(broker: Mosquitto) -> None:
    broker.kill()
    time.sleep(DOWN)
    broker.start()


def settled(broker: Mosquitto, observer: Client) -> dict[str, bytes] | None:
    """What is retained, once every edge's presence is that of its newest session: the run may end before the last of
    them has found the broker again."""
    with Client(broker.endpoint, "fl/#") as later:
        later.catch_up()
    retained = later.retained
    for client in ("0", "1", "2", "judge"):
        presence = json.loads(retained.get(f"fl/clients/{client}/presence", b"{}"))
        newest = observer.all(m.Registration, client=client)[-1].session
        if (presence.get("state"), presence.get("session")) != ("online", newest):
            return None
    return retained


def test_a_broker_that_dies_in_every_phase(
    tmp_path: Path, broker: Mosquitto, undisturbed: dict[int, str]
) -> None:
    """While edges are waited for, and in rounds 1 to 5 while models are fetched, edges train, updates are on the
    way, the average is made, and the last version is evaluated."""
    with contextlib.ExitStack() as stack:
        observer = stack.enter_context(Client(broker.endpoint, "fl/#", reconnect=True))
        two = stack.enter_context(edges(tmp_path, broker, "1-2"))
        judge = stack.enter_context(edges(tmp_path, broker, "judge", "--role", "evaluate"))
        run = stack.enter_context(programs.aggregator(tmp_path, broker.url, *settings(5)))

        def struck(done: threading.Event) -> None:
            assert done.wait(160), run.output + two.output

        observer.wait_for_message(m.Status, present=3)
        die_and_come_back(broker)
        one = stack.enter_context(edges(tmp_path, broker, "0"))

        def hold_workers() -> None:
            freeze(*workers(one), *workers(two))

        fetching = observer.when_message(broker.freeze, m.Selected, round=1)
        training = observer.when_message(hold_workers, m.Selected, round=2)
        sending = observer.when_message(broker.freeze, m.UpdateChunk, client="0", round=3)
        answers = []

        def third_answer(heard: object) -> bool:
            message = getattr(heard, "message", None)
            if isinstance(message, m.Accepted) and message.round == 4:
                answers.append(message.client)
            return len(set(answers)) == 3

        averaging = observer.when(third_answer, broker.freeze)
        # It evaluates at once: its worker stands still before, so that the run cannot end before the broker dies.
        held = observer.when_message(lambda: freeze(*workers(judge)), m.Selected, round=5)
        judging = observer.when_message(broker.freeze, m.ModelAnnouncement, version=5)

        struck(fetching)
        die_and_come_back(broker)

        struck(training)
        # What a persistent broker will come back with from now on.
        os.kill(broker.pid, signal.SIGUSR1)
        time.sleep(0.2)
        before = time.monotonic()
        die_and_come_back(broker)
        for client in ("0", "1", "2"):
            observer.wait_for_message(m.Registration, after=before, client=client)
        thaw(*workers(one), *workers(two))

        struck(sending)
        die_and_come_back(broker)

        struck(averaging)
        assert not observer.all(m.ModelAnnouncement, version=4)
        die_and_come_back(broker)

        struck(held)
        struck(judging)
        die_and_come_back(broker)
        thaw(*workers(judge))
        run.ends_well()

        history = programs.history(tmp_path)
        assert [line["version"] for line in history] == [1, 2, 3, 4, 5]
        assert all(line["participants"] == ["0", "1", "2"] and not line["missing"] for line in history)
        assert "evaluated_examples" in history[-1]["metrics"], "the last version was evaluated"
        assert {n: times for n, times in trainings(one, two).items() if n} == dict.fromkeys(range(1, 6), 3)
        assert model_sha256(tmp_path) == undisturbed[5]
        assert "Traceback" not in run.err + one.err + two.err
        retained = wait_until(lambda: settled(broker, observer), 20, "all edges say that they are there")
    rounds = {topic for topic in retained if topic.startswith("fl/round/")}
    assert {topic.split("/")[3] for topic in rounds} == {"result", "edges"}, "no round is open"
    assert len([topic for topic in rounds if topic.endswith("/edges")]) == 1, "the last one's, for watchers"
    assert {"fl/round/3/result", "fl/round/4/result", "fl/round/5/result"} <= rounds
    assert json.loads(retained["fl/model"])["version"] == 5
    models = {topic.split("/")[2] for topic in retained if topic.startswith("fl/model/")}
    assert len(models) == 2, "the newest two, and nothing that came back from the dead"


def test_the_aggregator_is_born_again_when_it_listens_to_updates(
    mosquitto: Mosquitto, network: Network
) -> None:
    """An edge that is admitted offers its update at once, and again only after five seconds or more."""
    inbox = Inbox(lambda received: AdmittedMessage(None, received))
    links = Connections(network, BrokerAccess(mosquitto.address), Settings(), EnvelopeSource("R", 1), inbox)
    with Client(mosquitto.endpoint, "fl/aggregator") as seen:
        links.connect(10)
        links.connect_updates()
        links.begin_session()
        item = None
        while item is None or item[0] != "updates":
            item = inbox.get(10)
            assert item is not None, "the connection for updates"
        assert isinstance(item[1], mqtt.Connected)
        time.sleep(0.3)
        assert not seen.received
        links.subscribe_to_updates()
        wait_until(lambda: seen.received, 30, "its birth")
        links.subscribe_to_updates()
        links.close()
        wait_until(lambda: len(seen.received) > 1, 30, "its message of leaving")
    assert [json.loads(one.payload)["state"] for one in seen.received] == ["online", "offline"], "born once"


def test_a_broker_that_is_stopped_in_order_costs_no_round(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """It sends everybody's will before it goes, and stays away for twice as long as ``--grace``."""
    with contextlib.ExitStack() as stack:
        observer = stack.enter_context(Client(mosquitto.endpoint, "fl/#", reconnect=True))
        fleet = stack.enter_context(edges(tmp_path, mosquitto, "0-2", "--evaluator", "judge"))
        options = (*settings(2), "--grace", "0.5")
        run = stack.enter_context(programs.aggregator(tmp_path, mosquitto.url, *options))
        training = observer.when_message(lambda: freeze(*workers(fleet)), m.Selected, round=1)
        assert training.wait(160), run.output + fleet.output
        mosquitto.stop()
        time.sleep(1.0)
        mosquitto.start()
        thaw(*workers(fleet))
        run.ends_well()
    lines = programs.history(tmp_path)
    assert [(line["outcome"], len(line["participants"])) for line in lines] == [("committed", 3)] * 2
