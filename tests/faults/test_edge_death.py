"""An edge is killed in each phase of a round, and comes back in the same one (with its state directory).

What it had not finished it begins again; what it had finished it sends, without training again. Nobody notices: the
run's model is that of a run in which nothing happened.
"""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_edge.storage import update_store
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.builders import partition
from tests.support.client import Client
from tests.support.programs import freeze, kill, thaw, workers
from tests.support.simulated_aggregator import SimulatedAggregator
from tests.support.synthetic_run import TASK, model_sha256, settings, trainings
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(480)]

ROUNDS = ("fetching", "training", "sending", "waiting")


def edge(directory: Path, broker: TcpProxy, ids: str, life: int = 1) -> programs.Program:
    """``life``: how often it has been started with this directory."""
    state = str(directory / ids / "state")
    return programs.edges(
        directory / ids / str(life), broker.url, ids, "--task", TASK, "--workers", "1", "--state-dir", state
    )


def kept_file(directory: Path, ids: str, client: str = "") -> Path:
    return directory / ids / "state" / client / update_store.FILE_NAME


def test_an_edge_that_dies_in_every_phase(
    tmp_path: Path, mosquitto: Mosquitto, undisturbed: dict[int, str]
) -> None:
    """In round 1 while it fetches the model, in round 2 while it trains, and so on; it is back at once each time.

    Proxies hold the packets that begin a phase, so that the phase lasts until the edge is killed.
    """
    with contextlib.ExitStack() as stack:
        observer = stack.enter_context(Client(mosquitto.endpoint, "fl/#"))
        proxy = stack.enter_context(TcpProxy(mosquitto.port))
        their_proxy = stack.enter_context(TcpProxy(mosquitto.port))
        fetching = proxy.hold("up", "/manifest")
        opened = {number: proxy.hold("down", f"fl/round/{number}/selected") for number in (2, 3, 4)}
        others_opened = their_proxy.hold("down", "fl/round/4/selected")
        others = stack.enter_context(edge(tmp_path, their_proxy, "1-2"))
        lives = [stack.enter_context(edge(tmp_path, proxy, "0"))]

        def die() -> None:
            """What is held on the way to the broker is lost."""
            kill(lives[-1])
            proxy.cut()

        def come_back() -> None:
            proxy.restore()
            lives.append(stack.enter_context(edge(tmp_path, proxy, "0", len(lives) + 1)))

        run = stack.enter_context(programs.aggregator(tmp_path, mosquitto.url, *settings(len(ROUNDS))))

        fetching.wait()
        die()
        fetching.release()
        assert 1 not in trainings(*lives)
        come_back()

        opened[2].wait()
        freeze(*workers(lives[-1]))
        opened[2].release()
        for client in ("1", "2"):
            observer.wait_for_message(m.Accepted, client=client, round=2)
        die()
        assert 2 not in trainings(*lives)
        come_back()

        opened[3].wait()
        sending = proxy.hold("up", "update-chunk")
        opened[3].release()
        sending.wait()
        wait_until(kept_file(tmp_path, "0").exists, 30, "the finished update is on disk")
        die()
        sending.release()
        assert trainings(*lives)[3] == 1
        assert not observer.all(m.UpdateChunk, client="0", round=3)
        come_back()
        observer.wait_for_message(m.Accepted, client="0", round=3)
        assert "round 3: its update was finished before the restart" in lives[-1].err

        others_opened.wait()
        freeze(*workers(others))  # so that the round lasts until the edge is back
        others_opened.release()
        opened[4].wait()
        waiting = proxy.hold("down", "accepted")
        opened[4].release()
        waiting.wait()
        wait_until(kept_file(tmp_path, "0").exists, 30, "the finished update is on disk")
        die()
        waiting.release()
        observer.wait_for_message(m.Accepted, client="0", round=4)
        come_back()
        observer.wait_for_message(m.Admitted, client="0", finished_round=4)
        thaw(*workers(others))
        run.ends_well()

        assert [line["participants"] for line in programs.history(tmp_path)] == [["0", "1", "2"]] * len(
            ROUNDS
        )
        trained = trainings(*lives)
        assert [trained[number] for number in (1, 2, 3, 4)] == [1, 1, 1, 1]
        wait_until(lambda: not kept_file(tmp_path, "0").exists(), 30, "nothing is kept any more")
        assert "Traceback" not in run.err + "".join(life.err for life in lives)
    assert model_sha256(tmp_path) == undisturbed[len(ROUNDS)]


def test_a_whole_fleet_while_it_waits(
    tmp_path: Path, mosquitto: Mosquitto, undisturbed: dict[int, str]
) -> None:
    """Its parent is killed, and with it go its workers. All updates were finished, none had been asked for."""
    with (
        Client(mosquitto.endpoint, "fl/#") as observer,
        TcpProxy(mosquitto.port) as proxy,
        edge(tmp_path, proxy, "0-2") as fleet,
        contextlib.ExitStack() as stack,
    ):
        opened = proxy.hold("down", "fl/round/1/selected")
        run = stack.enter_context(programs.aggregator(tmp_path, mosquitto.url, *settings(3)))
        opened.wait()
        freeze(run.pid)
        opened.release()
        files = [kept_file(tmp_path, "0-2", client) for client in "012"]
        wait_until(lambda: all(file.exists() for file in files), 60, "three finished updates")
        kill(fleet)
        with edge(tmp_path, proxy, "0-2", 2) as again:
            observer.wait_for_message(m.ClientPresence, client="2", state="online")
            thaw(run.pid)
            run.ends_well()
            assert trainings(fleet)[1] == 3
            assert trainings(again) == {2: 3, 3: 3}
            wait_until(lambda: not any(file.exists() for file in files), 30, "nothing is kept any more")
    assert model_sha256(tmp_path) == undisturbed[3]


@pytest.mark.long
def test_an_answer_that_never_came(tmp_path: Path, shared_mosquitto: Mosquitto, stack: ExitStack) -> None:
    """The aggregator has not got the update, so the next life of the edge sends it: the same bytes, once trained."""
    prefix, small = "faults/unanswered", "synthetic-1000"
    wire = stack.enter_context(SimulatedAggregator(shared_mosquitto.endpoint, prefix, task=small))
    arguments = ("--task", small, "--prefix", prefix)
    state = ("--state-dir", str(tmp_path / "state"))
    file = tmp_path / "state" / update_store.FILE_NAME
    with programs.edges(tmp_path / "1", shared_mosquitto.url, "0", *arguments, *state) as first:
        wire.admit_fully("0")
        wire.select(0, ("0",), None)
        sent = wire.expect(m.Update, round=0)
        wait_until(file.exists, 30, "it is on disk")
        kill(first)
    with programs.edges(tmp_path / "2", shared_mosquitto.url, "0", *arguments, *state) as second:
        wire.admit(wire.expect(m.Registration, 30, client="0", run=None))
        again = wire.expect(m.Update, round=0)
        assert (again.digest, again.sections, again.examples) == (sent.digest, sent.sections, sent.examples)
        assert again.session != sent.session
        wire.answer(again)
        wait_until(lambda: not file.exists(), 30, "nothing is kept any more")
        assert trainings(second) == {}
    wire.clear(t.SelectedTopic(0))


def test_the_update_of_another_run_is_not_sent(
    tmp_path: Path, shared_mosquitto: Mosquitto, stack: ExitStack
) -> None:
    prefix, small = "faults/other", "synthetic-1000"
    arguments = ("--task", small, "--prefix", prefix, "--state-dir", str(tmp_path / "state"))
    wire = stack.enter_context(SimulatedAggregator(shared_mosquitto.endpoint, prefix, task=small))
    file = tmp_path / "state" / update_store.FILE_NAME
    with programs.edges(tmp_path / "1", shared_mosquitto.url, "0", *arguments) as first:
        wire.admit_fully("0")
        wire.select(0, ("0",), None)
        wire.expect(m.Update, round=0)
        wait_until(file.exists, 30, "it is on disk")
        kill(first)
    wire.clear(t.SelectedTopic(0))
    with programs.edges(tmp_path / "2", shared_mosquitto.url, "0", *arguments):
        registered = wire.expect(m.Registration, 30, client="0", run=None)
        part = partition()
        fields = {"run": "another", "incarnation": 1, "seq": 1, "client": "0", "session": registered.session}
        wire.send(t.RepliesTopic("0"), m.Admitted(**fields, task=small, partition=part))  # type: ignore[arg-type]
        wire.expect(m.Registration, run="another")
        wait_until(lambda: not file.exists(), 30, "nothing is kept any more")
        wire.expect_silence(m.Update, 1.0)
