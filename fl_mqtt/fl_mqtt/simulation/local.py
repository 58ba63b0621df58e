"""Runs a broker, a fleet of edges and the aggregator on this machine. All of them end with this process."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.server.aggregator import Aggregator
from fl_aggregator.server.outcome import Outcome
from fl_aggregator.storage.run_directory import FLEET_LOG, LABEL_COUNTS_FILE, RUN_FILE, FleetRecord
from fl_aggregator.tools.dashboard.address import WebSocketAddress
from fl_aggregator.tools.dashboard.server import DashboardServer
from fl_aggregator.tools.remote import predict
from fl_edge.runtime.device import training_device
from fl_edge.tasks.registry import EDGE_PACKAGES, TASK_PATH, is_path, light_names
from fl_edge.training.factory import has_torch
from fl_mqtt.simulation.edges_online import wait_for_edges
from fl_shared.cli import signals
from fl_shared.cli.broker_access import BrokerAccess, BrokerOptions
from fl_shared.errors import RunFailed, UserError
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.protocol import messages as m
from fl_shared.protocol.task_spec import task_name
from fl_shared.system.child_process import ChildProcess
from fl_shared.system.invocation import install_command
from fl_shared.system.mosquitto import LOOPBACK, MosquittoChild

EVALUATOR: Final = "evaluator"
PREDICT_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 10.0
_POLL: Final = 0.2
PASSED_TASKS: Final = "local_task"
"""The module of a class that a Python program passes to its edges. It is never part of a run directory, from which a
resume must not take code."""
ATTACKING: Final = "fl_mqtt.simulation.attacking"
"""The module that runs a fleet with attackers."""
_BROKER: Final = "broker"
_EDGES: Final = "edges"


def broker_of_fleet(options: BrokerOptions, address: str | None) -> BrokerAccess | None:
    """How a simulation reaches the broker at ``address``; null if it starts its own broker.

    Raises ``UserError`` for a kit, and if credentials are given for a simulation with its own broker.
    """
    if options.kit is not None:
        raise UserError(
            "--kit: a kit is for one account, but simulate runs a fleet; expected --ca, --cert, --key"
        )
    if address is not None:
        return options.access(recorded_address=BrokerAddress.parse(address))
    if keys := options.credential_arguments():
        raise UserError(f"{keys[0]} needs --broker: a simulation's own broker has no certificates")
    return None


def edge_environment(password: str | None, task_path: Sequence[str]) -> dict[str, str]:
    """The environment of edges that this program starts: the broker's password, and where tasks are found."""
    environment = {**os.environ, TASK_PATH: json.dumps(list(task_path))}
    environment.pop("FL_PASSWORD", None)  # it may be the password of another broker
    if password is not None:
        environment["FL_PASSWORD"] = password
    return environment


def mistake_in(log_tail: str) -> str:
    """The text of the error in the last line of an edge's log."""
    return log_tail.rpartition(" error: ")[2].removeprefix("fl-edge: ")


def check_fleet_possible(task: str, device: object) -> None:
    """Raises ``UserError`` if ``device`` is missing, or a package that edges need for ``task``."""
    missing = [name for name in sorted(EDGE_PACKAGES) if importlib.util.find_spec(name) is None]
    if missing and task_name(task) not in light_names() and not is_path(task_name(task)):
        raise UserError(f"simulate needs {', '.join(missing)} for its edges: {install_command('edge')}")
    if device == "cuda":
        training_device("cuda", task, light=not has_torch())


@contextmanager
def deleted_without_run(directory: Path) -> Iterator[None]:
    """At the end, deletes what broker and edges have written in ``directory``, if no run began there."""
    written = (_BROKER, _EDGES, LABEL_COUNTS_FILE, FLEET_LOG)
    paths = tuple(path for name in written if not (path := directory / name).exists())
    try:
        yield
    finally:
        if not (directory / RUN_FILE).exists():
            for path in paths:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


class Simulation:
    """Starts a broker on entry, unless one is given, and stops it and the fleet on exit.

    If no run began in ``directory``, the files that broker and fleet have written there are deleted on exit. Raises
    ``UserError`` if a package is missing that the edges need for ``task``, or the ``device`` that they are to use.
    """

    def __init__(
        self,
        directory: Path,
        task: str,
        given: BrokerAccess | None,
        options: BrokerOptions,
        device: object,
    ) -> None:
        check_fleet_possible(task, device)
        self._directory = directory
        self._given = given
        self._options = options
        self._stack = ExitStack()
        self._fleet: ChildProcess | None = None
        self._websockets: str | None = None
        self.broker: BrokerAccess

    def __enter__(self) -> Simulation:
        self._stack.enter_context(deleted_without_run(self._directory))
        if self._given is not None:
            self.broker = self._given
            return self
        try:
            child = self._stack.enter_context(MosquittoChild(self._directory / _BROKER, websockets=True))
        except BaseException as error:
            self._stack.close()
            if isinstance(error, OSError):
                raise UserError(f"--run-dir {self._directory}: {error.strerror}: {error.filename}") from None
            raise
        self.broker = BrokerAccess(BrokerAddress.parse(child.url), keepalive=self._options.keepalive)
        self._websockets = child.websocket_url
        return self

    def __exit__(self, *_: object) -> None:
        if self._fleet is not None:
            self._fleet.stop(STOP_TIMEOUT)
        self._stack.close()

    def serve_dashboard(self, settings: Settings) -> str | None:
        """Serves the dashboard until exit, and returns its URL; null with a broker that it did not start.

        The simulation does not know another broker's address for browsers (WebSocket).
        """
        if self._websockets is None:
            return None
        address = WebSocketAddress.parse(self._websockets)
        return self._stack.enter_context(DashboardServer(address, settings.prefix, (LOOPBACK, 0))).url

    def stay(self) -> None:
        """Waits for Ctrl-C or SIGTERM while the edges answer predictions.

        Raises `RunFailed` if the edges exit.
        """
        done = threading.Event()
        signals.end_on_signals(lambda _signal: done.set())
        while not done.wait(_POLL):
            assert self._fleet is not None
            if (code := self._fleet.poll()) is not None:
                raise RunFailed(f"the edges exited (status {code}): {self._fleet.log_tail(3)}")

    def start_fleet(self, settings: Settings, fleet: FleetRecord, task_path: Sequence[str] = ()) -> None:
        """Starts ``--clients`` edges, and one more that only evaluates, in one process tree.

        ``task_path``: directories of a task's module, besides the current one. Raises ``UserError`` for a task that a
        Python program must pass on.
        """
        module, _, name = settings.task.partition(":")
        if module == PASSED_TASKS and not task_path:
            raise UserError(
                f"the run's task is the class {name} of a Python program: "
                f"resume it there, with fl_mqtt.simulate({name}, resume={str(self._directory)!r})"
            )
        attack = fleet.attack
        command = [
            sys.executable,
            "-m",
            *(
                ("fl_edge",)
                if attack is None
                else (ATTACKING, "fleet", attack.specification, str(settings.clients), settings.task)
            ),
            "--id",
            f"0-{settings.clients - 1}",
            "--evaluator",
            EVALUATOR,
        ]
        if settings.clients == 1:
            command[command.index("0-0")] = "0"
        command += ["--broker", str(self.broker.address), "--prefix", settings.prefix]
        command += ["--state-dir", str(self._directory / _EDGES), "--keepalive", str(self.broker.keepalive)]
        command += ["--task", settings.task_spec, "--parts-file", str(self._directory / LABEL_COUNTS_FILE)]
        command += self._options.credential_arguments()
        for name, value in fleet.options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        environment = edge_environment(self.broker.password, task_path)
        self._fleet = ChildProcess(command, self.fleet_log, environment)

    @property
    def fleet_log(self) -> Path:
        """The file that receives the output of the edges."""
        return self._directory / FLEET_LOG

    def run(self, aggregator: Aggregator) -> Outcome:
        """Runs the aggregator until the run ends. If the fleet exits, stops the aggregator at once.

        Then raises ``UserError`` if the fleet exited because of a user's mistake, else ``RunFailed``, with
        the last lines of the fleet's log. After a mistake before the first round of a new run, ``run.json``
        is deleted, so that the directory contains no run.
        """
        if aggregator.scope.incarnation > 1:
            names = [str(number) for number in range(aggregator.settings.clients)]
            broker = replace(self.broker, prefix=aggregator.settings.prefix)
            wait_for_edges(broker, names, lambda: self._fleet is None or self._fleet.poll() is not None)
        done = threading.Event()
        died: list[int] = []

        def watch() -> None:
            while not done.wait(_POLL):
                code = None if self._fleet is None else self._fleet.poll()
                if code is not None:
                    died.append(code)
                    aggregator.request_stop(f"the fleet exited with status {code}")
                    return

        watcher = threading.Thread(target=watch, name="fl-fleet-watch", daemon=True)
        watcher.start()
        outcome: Outcome | None = None
        try:
            outcome = aggregator.run()
        except RunFailed:
            if not died:
                raise
        finally:
            done.set()
            watcher.join()
        if not died and outcome is not None:
            return outcome
        assert self._fleet is not None
        if died[0] != UserError.exit_code:
            said = self._fleet.log_tail(3) or self.fleet_log
            raise RunFailed(f"the edges exited (status {died[0]}): {said}")
        if outcome is not None and not outcome.state.begun and aggregator.scope.incarnation == 1:
            (self._directory / RUN_FILE).unlink(missing_ok=True)
        # Every edge of the fleet has reported the same mistake; show it once.
        raise UserError(mistake_in(self._fleet.log_tail(1)))

    def predict(self, settings: Settings, payload: bytes) -> m.Prediction:
        """Asks the edges for a prediction, as any MQTT client may.

        ``payload``: the bytes of a picture file, or JSON. Raises ``RunFailed`` if no answer arrives within
        ``PREDICT_TIMEOUT`` seconds.
        """
        return predict.request_prediction(
            self.broker, predict.Request(payload, settings.prefix), PREDICT_TIMEOUT
        )
