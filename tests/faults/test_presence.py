"""Who is there, on a real broker: lost connections, silent ones, slow edges, old wills and second devices."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support import builders, programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.programs import freeze, kill, thaw
from tests.support.synthetic_run import TASK, Hold, trainings
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(480)]

KEEPALIVE = float(programs.KEEPALIVE)


def edge(
    directory: Path, broker: Mosquitto, client: str, *arguments: str, hold: Hold | None = None
) -> programs.Program:
    common = ("--task", TASK, "--workers", "1")
    environment = None if hold is None else hold.environment
    return programs.edges(
        directory / client, broker.url, client, *common, *arguments, environment=environment
    )


def settings(clients: int, per_round: int, rounds: int = 1, grace: float = 0.0) -> tuple[str, ...]:
    return (
        "--task", TASK, "--clients", str(clients), "--per-round", str(per_round), "--rounds", str(rounds),
        "--quorum", "1", "--grace", str(grace), "--wait", "120", "--holdout", "0",
    )  # fmt: skip


def presence_of(broker: Mosquitto, client: str) -> dict[str, str]:
    """What is retained of it."""
    name = f"fl/clients/{client}/presence"
    with Client(broker.endpoint, name) as listener:
        wait_until(lambda: listener.received, 30, f"the presence of {client}")
    found: dict[str, str] = json.loads(listener.received[-1].payload)
    return found


class SimulatedEdge(Client):
    """One edge's connection with its will, as far as presence goes."""

    def __init__(self, broker: Mosquitto, client: str, session: str, device: str = "d") -> None:
        self.client, self.session, self.device = client, session, device
        will = codec.encode(m.ClientPresence(client=client, state="offline", session=session))
        topic = t.build("fl", t.PresenceTopic(client))
        super().__init__(broker.endpoint, f"fl/replies/{client}", will=(topic, will))
        self.publish(topic, m.ClientPresence(client=client, state="online", session=session), retain=True)

    def register(self) -> None:
        registration = builders.registration(self.client, seq=1, session=self.session, device=self.device)
        self.send(t.RegisterTopic(self.client), registration)

    def reply(self, timeout: float = 10.0) -> m.Message:
        """The next one to this session."""
        found = self.take(lambda one: getattr(one.message, "session", None) == self.session, timeout=timeout)
        assert found.message is not None
        return found.message


@pytest.fixture
def waiting(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[programs.Program]:
    """An aggregator that waits for three edges."""
    with programs.aggregator(tmp_path, mosquitto.url, *settings(3, 3)) as run:
        yield run


def test_lost_and_silent_edges_and_a_slow_one(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Of three edges at work one is killed, one hangs, one is slow. The first two are replaced as soon as it can be
    known that they are gone: a lost connection at once, a silent one when the broker misses it (1.5 keepalives)."""
    with contextlib.ExitStack() as stack:
        observer = stack.enter_context(Client(mosquitto.endpoint, "fl/#", reconnect=True))
        hold = Hold(tmp_path, 1)
        fleet = {c: stack.enter_context(edge(tmp_path, mosquitto, c, hold=hold)) for c in "01234"}

        run = stack.enter_context(programs.aggregator(tmp_path, mosquitto.url, *settings(5, 3)))
        hold.wait(observer)
        opened = observer.all(m.Selected, round=1)[0]
        assert opened.cohort is not None
        lost, silent, slow = opened.cohort
        substitutes = set("01234") - set(opened.cohort)

        def called(beyond: int) -> float:
            """When the cohort had more than so many names."""
            selected = observer.wait_for(
                lambda one: isinstance(one.message, m.Selected) and len(one.message.cohort or ()) > beyond,
                f"a cohort of more than {beyond}",
                timeout=30,
            )
            return selected.at

        stopped = time.monotonic()
        freeze(fleet[silent].pid)
        killed = time.monotonic()
        fleet[lost].send(signal.SIGKILL)
        noticed = called(3) - killed
        print(f"killed edge replaced after {noticed:.3f} s")  # noqa: T201
        silence = called(4) - stopped
        print(f"silent edge replaced after {silence:.3f} s")  # noqa: T201
        # Mosquitto looks for silent clients every five seconds.
        assert silence > KEEPALIVE * 0.5
        first, second = (run.err.index(f"edge {client} is offline") for client in (lost, silent))
        assert first < second, "a lost connection is noticed at once, silence is not"

        # A slow edge sends no update for longer than that, and is there all the same.
        time.sleep(KEEPALIVE)
        newest = observer.all(m.Selected, round=1)[-1]
        assert set(newest.cohort or ()) == {lost, silent, slow} | substitutes
        hold.release()
        run.ends_well()
        (line,) = programs.history(tmp_path)
        assert line["participants"] == sorted({slow} | substitutes)
        assert set(line["missing"]) == {lost, silent}
        thaw(fleet[silent].pid)
        wait_until(lambda: presence_of(mosquitto, silent)["state"] == "online", 20, "it is back")


def test_an_edge_that_wakes_up_in_the_same_round_takes_it_up_again(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """It was silent for longer than the keepalive, so the broker said that it is gone; its training goes on."""
    with contextlib.ExitStack() as stack:
        observer = stack.enter_context(Client(mosquitto.endpoint, "fl/#", reconnect=True))
        hold = Hold(tmp_path, 1)
        one = stack.enter_context(edge(tmp_path, mosquitto, "0", hold=hold))
        stack.enter_context(edge(tmp_path, mosquitto, "1"))
        run = stack.enter_context(
            programs.aggregator(tmp_path, mosquitto.url, *settings(2, 2, grace=30.0), "--quorum", "2")
        )
        hold.wait(observer)
        freeze(one.pid)
        observer.wait_for_message(m.ClientPresence, client="0", state="offline")
        thaw(one.pid)
        hold.release()
        run.ends_well()
        (line,) = programs.history(tmp_path)
        assert line["participants"] == ["0", "1"]
        assert trainings(one)[1] == 1


def test_an_old_will_does_not_declare_absent_who_has_come_back(
    waiting: programs.Program, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    """The old connection of a device is half open when it comes back: it takes over, and the old will says nothing."""
    with Client(mosquitto.endpoint, "fl/#", reconnect=True) as observer:
        observer.wait_for_message(m.AggregatorPresence, state="online")
        old = stack.enter_context(SimulatedEdge(mosquitto, "0", "old"))
        old.register()
        assert isinstance(old.reply(), m.Admitted)
        observer.wait_for_message(m.Status, present=1)
        new = stack.enter_context(SimulatedEdge(mosquitto, "0", "new"))
        new.register()
        assert isinstance(new.reply(), m.Admitted)
        old.drop_connection()
        observer.wait_for_message(m.ClientPresence, session="old", state="offline")
        before = time.monotonic()
        new.drop_connection()
        observer.wait_for_message(m.Status, 3.0, after=before, present=0)
        assert not [
            at
            for at in observer.times(m.Status, present=0)
            if observer.times(m.Status, present=1)[0] < at < before
        ]


def test_an_old_will_that_overwrites_a_birth_is_overwritten(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    with (
        edge(tmp_path, mosquitto, "0") as program,
        Client(mosquitto.endpoint, "fl/#", reconnect=True) as observer,
    ):
        born = observer.wait_for_message(m.ClientPresence, client="0", state="online")
        stranger = stack.enter_context(Client(mosquitto.endpoint))
        will = m.ClientPresence(client="0", state="offline", session="an-old-one")
        stranger.publish("fl/clients/0/presence", will, retain=True)
        observer.wait_for_message(m.ClientPresence, client="0", state="offline")
        wait_until(lambda: presence_of(mosquitto, "0")["state"] == "online", 5, "it says that it is there")
        assert presence_of(mosquitto, "0")["session"] == born.session
        assert program.running()


def socket_bytes() -> int:
    """The most that the sockets between a broker and a frozen program hold, so that what follows waits in its queue."""
    limits = (Path(f"/proc/sys/net/ipv4/tcp_{side}mem").read_text().split() for side in "rw")
    return sum(int(limit[-1]) for limit in limits)


def test_a_will_that_overtakes_what_its_edge_has_said(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    """Registrations wait in the broker's queue (QoS 1) behind others, wills (QoS 0) do not: an edge that is gone must
    not be taken for present when its registration comes at last."""
    # The broker would end the connection of a frozen aggregator, and forget its queue, after 1.5 keepalives.
    waits = programs.aggregator(tmp_path, mosquitto.url, *settings(3, 3), "--keepalive", "120")
    with waits as waiting, Client(mosquitto.endpoint, "fl/#", reconnect=True) as observer:
        observer.wait_for_message(m.AggregatorPresence, state="online")
        flood = stack.enter_context(Client(mosquitto.endpoint))
        freeze(waiting.pid)
        for _ in range(socket_bytes() // 60_000 + 50):
            flood.send("fl/register/flood", b"x" * 60_000)
        flood.publish("fl/register/flood")  # the broker has those before
        ghost = stack.enter_context(SimulatedEdge(mosquitto, "0", "ghost"))
        ghost.register()
        observer.wait_for_message(m.Registration, session="ghost")
        ghost.drop_connection()
        observer.wait_for_message(m.ClientPresence, session="ghost", state="offline")
        thaw(waiting.pid)
        here = stack.enter_context(SimulatedEdge(mosquitto, "1", "here"))
        here.register()
        assert isinstance(here.reply(30.0), m.Admitted)
        before = time.monotonic()
        observer.wait_for_message(m.Status, after=before, present=1)
        assert not observer.all(m.Status, present=2)
        assert not observer.all(m.Admitted, session="ghost")


def test_a_second_device_with_an_id_in_use(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """It is refused and ends with 2; the run and the first device go on as if nothing had been."""
    with contextlib.ExitStack() as stack:
        observer = stack.enter_context(Client(mosquitto.endpoint, "fl/#", reconnect=True))
        hold = Hold(tmp_path, 1)
        fleet = {c: stack.enter_context(edge(tmp_path, mosquitto, c, hold=hold)) for c in "01"}
        run = stack.enter_context(
            programs.aggregator(tmp_path, mosquitto.url, *settings(2, 2), "--quorum", "2")
        )
        hold.wait(observer)
        with edge(tmp_path / "second", mosquitto, "0") as second:
            assert second.wait(20) == 2, second.output
        assert "id-in-use" in second.err
        assert "in use by another device" in second.err
        assert len([line for line in second.err.splitlines() if "error" in line.lower()]) == 1, second.err
        hold.release()
        run.ends_well()
        (line,) = programs.history(tmp_path)
        assert (line["participants"], line["missing"]) == (["0", "1"], {})
        assert all(program.running() for program in fleet.values())
        sessions = {r.session for r in observer.all(m.Registration, client="0") if r.run is not None}
        assert len(sessions) == 1, "the first device was not even disconnected"
        found = presence_of(mosquitto, "0")
        assert (found["state"], found["session"]) == ("online", *sessions)


def test_another_device_may_have_an_id_that_is_free_again(
    tmp_path: Path, waiting: programs.Program, mosquitto: Mosquitto
) -> None:
    with (
        Client(mosquitto.endpoint, "fl/#", reconnect=True) as observer,
        edge(tmp_path, mosquitto, "0") as first,
    ):
        observer.wait_for_message(m.Admitted, client="0")
        kill(first)
        with edge(tmp_path / "second", mosquitto, "0") as second:
            wait_until(lambda: "registered for run" in second.err, 20, "it is let in")
