"""A crash is a lost connection: whoever crashes is offline at once, whatever it was doing."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.effects import EFFECT_SPECS
from fl_aggregator.round.events import TimePassed
from fl_aggregator.round.machine import step
from fl_aggregator.server import aggregator, launch
from fl_aggregator.server.interpreter import Interpreter
from fl_edge.runtime import fleet
from fl_edge.runtime.loop import Runtime
from fl_edge.runtime.worker_setup import EdgeSettings
from fl_edge.session import effects, events, machine
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.protocol import messages as m
from fl_shared.transfer.publication import model_publication
from tests.support import programs, rogue_tasks
from tests.support.broker import Mosquitto
from tests.support.builders import training_request
from tests.support.client import Client
from tests.support.simulated_aggregator import SimulatedAggregator, first_model

pytestmark = [
    pytest.mark.broker,
    pytest.mark.edge,
    pytest.mark.timeout(480),
    pytest.mark.usefixtures("forked_children"),
]

TASK = "synthetic-1000"


class Crash(Exception):
    """What the tests raise."""


def crash() -> None:
    raise Crash


def run_edge(broker: Mosquitto, prefix: str, state_dir: Path) -> None:
    """Runs the edge 7 in this process until it ends."""
    fleet.run(
        fleet.FleetSettings(
            edges=(EdgeSettings("7", ("train",), state_dir),),
            broker_access=BrokerAccess(BrokerAddress.parse(broker.url), prefix=prefix),
            task=TASK,
            data=None,
            device="cpu",
            workers=1,
            chunk_size=2**20,
            broker_timeout=None,
            heartbeat=None,
        )
    )


@pytest.mark.parametrize("kind", get_args(effects.Effect))
def test_an_edge_that_raises_at_an_effect_is_offline(
    kind: type, tmp_path: Path, shared_mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    fatal: Any = object.__new__(kind)
    edge_step, really_perform = machine.step, Runtime._perform

    def step_with_effect(state: machine.SessionState, event: machine.Event) -> Any:
        after, asked = edge_step(state, event)
        # Its own birth has come back, so it is online.
        return after, (*asked, fatal) if isinstance(event, events.PresenceSeen) else asked

    def perform(self: Runtime, edge: Any, effect: Any, now: float) -> None:
        if effect is fatal:
            raise Crash
        really_perform(self, edge, effect, now)

    monkeypatch.setattr(machine, "step", step_with_effect)
    monkeypatch.setattr(Runtime, "_perform", perform)
    prefix = f"crash/edge/{kind.__name__}"
    with Client(shared_mosquitto.endpoint, f"{prefix}/#", prefix=prefix) as observer:
        with pytest.raises(Crash):
            run_edge(shared_mosquitto, prefix, tmp_path)
        left = observer.expect(m.ClientPresence, 10, state="offline")
        assert left.reason == "an error in its program: Crash", "before its will, which has no reason"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_edge_with_a_dead_thread_is_offline(
    tmp_path: Path, shared_mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would do the thread's work, such as to give jobs to a worker."""
    edge_step = machine.step

    def step_with_crash(state: machine.SessionState, event: machine.Event) -> Any:
        if isinstance(event, events.PresenceSeen):
            threading.Thread(target=crash).start()
        return edge_step(state, event)

    monkeypatch.setattr(machine, "step", step_with_crash)
    prefix = "crash/thread"
    with Client(shared_mosquitto.endpoint, f"{prefix}/#", prefix=prefix) as observer:
        with pytest.raises(Crash):
            run_edge(shared_mosquitto, prefix, tmp_path)
        observer.expect(m.ClientPresence, 10, state="offline")


def run_aggregator(broker: Mosquitto, prefix: str, run_dir: Path) -> aggregator.Aggregator:
    settings = Settings(task=TASK, clients=2, per_round=2, prefix=prefix)
    access = BrokerAccess(BrokerAddress.parse(broker.url), prefix=prefix)
    return aggregator.Aggregator(launch.new(settings, run_dir), access)


@pytest.mark.parametrize("kind", EFFECT_SPECS)
def test_an_aggregator_that_raises_at_an_effect_is_offline(
    kind: type, tmp_path: Path, shared_mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    """Even while its other thread still computes."""
    fatal: Any = object.__new__(kind)
    really_perform = Interpreter.perform
    is_online = threading.Event()

    def step_with_effect(state: Any, event: Any) -> Any:
        after, asked = step(state, event)
        return after, (*asked, fatal) if isinstance(event, TimePassed) and is_online.is_set() else asked

    def perform(self: Interpreter, effect: Any, state: Any) -> None:
        if effect is fatal:
            raise Crash
        really_perform(self, effect, state)

    monkeypatch.setattr("fl_aggregator.messaging.publisher.STATUS_INTERVAL", 0.1)  # so time passes as often
    monkeypatch.setattr("fl_aggregator.server.runner.step", step_with_effect)
    monkeypatch.setattr(Interpreter, "perform", perform)
    prefix = f"crash/aggregator/{kind.__name__}"
    observer = stack.enter_context(Client(shared_mosquitto.endpoint, f"{prefix}/#", prefix=prefix))
    run = run_aggregator(shared_mosquitto, prefix, tmp_path / "run")
    computed = threading.Event()
    stack.callback(computed.set)
    run._worker._executor.submit(computed.wait)
    raised: list[BaseException] = []

    def target() -> None:
        try:
            run.run()
        except Crash as error:
            raised.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    observer.expect(m.AggregatorPresence, 20, state="online")
    is_online.set()
    observer.expect(m.AggregatorPresence, 20, state="offline")
    computed.set()
    thread.join(20)
    assert raised


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_an_edge_that_a_signal_kills_is_offline(
    number: signal.Signals, tmp_path: Path, shared_mosquitto: Mosquitto
) -> None:
    prefix = f"crash/{number.name}"
    arguments = ("--task", TASK, "--prefix", prefix)
    with (
        Client(shared_mosquitto.endpoint, f"{prefix}/#", prefix=prefix) as observer,
        programs.edges(tmp_path, shared_mosquitto.url, "7", *arguments) as edge,
    ):
        observer.expect(m.ClientPresence, 30, state="online")
        os.kill(edge.pid, number)
        observer.expect(m.ClientPresence, 10, state="offline")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("crashes", "was killed by SIGSEGV"),
        ("exits", "SystemExit: 3"),
        (
            "negative",
            "task negative: evaluate(): metrics: accuracy: -0.3, expected 0 to 1, as Task.metrics declares",
        ),
    ],
)
def test_the_round_names_a_tasks_mistake_and_the_edge_lives(
    task: str,
    words: str,
    tmp_path: Path,
    shared_mosquitto: Mosquitto,
    monkeypatch: pytest.MonkeyPatch,
    stack: ExitStack,
) -> None:
    rogue_tasks.install(tmp_path, monkeypatch)
    prefix = f"crash/task-{task}"
    wire = stack.enter_context(SimulatedAggregator(shared_mosquitto.endpoint, prefix, task=task))
    stack.enter_context(programs.edges(tmp_path, shared_mosquitto.url, "7", "--prefix", prefix))
    wire.admit_fully("7")
    wire.select(0, ("7",), None)
    first = wire.expect(m.Update, 30)
    wire.answer(first)
    base = wire.publish_model(model_publication(first_model(first), 2**20), 0, evaluate="holdout")
    scores = wire.expect(m.Evaluation, 30)
    assert (scores.examples == 0) == (task == "negative")
    for number in (1, 2):
        wire.select(number, ("7",), base, training=training_request())
        failed = wire.expect(m.TrainingFailed, 60, round=number)
        assert words in failed.detail
    assert not any(seen.is_a(m.ClientPresence, state="offline") for seen in wire.received)
