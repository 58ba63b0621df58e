"""Everything on this machine: a broker, a fleet of edges, and the aggregator. All of it ends with this process."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_aggregator import predict
from fl_aggregator.links import BrokerSettings
from fl_aggregator.runtime import Aggregator, Outcome
from fl_aggregator.settings import Settings
from fl_shared import messages as m
from fl_shared.broker_url import BrokerAddress
from fl_shared.errors import RunFailed, UserError
from fl_shared.leash import Leashed
from fl_shared.mosquitto import MosquittoChild

EVALUATOR: Final = "evaluator"
PREDICT_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 10.0
_POLL: Final = 0.2


@dataclass(frozen=True, slots=True)
class Fleet:
    """How the edges are run: where the data lies, on what, in how many worker processes (null: one a core)."""

    data: Path | None = None
    device: str | None = None
    workers: int | None = None


def check_fleet_possible() -> None:
    """Edges need torch, which the aggregator alone does not bring."""
    missing = [
        name for name in ("torch", "torchvision", "sklearn", "PIL") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise UserError(f"simulate needs {', '.join(missing)} for its edges: pip install 'fl-mqtt[edge]'")


class Simulation:
    """A broker (unless one is given) and a fleet, started on entering and stopped on leaving."""

    def __init__(self, directory: Path, broker: BrokerSettings | None, keepalive: int) -> None:
        self._directory = directory
        self._given = broker
        self._keepalive = keepalive
        self._stack = ExitStack()
        self._fleet: Leashed | None = None
        self.broker: BrokerSettings

    def __enter__(self) -> Simulation:
        if self._given is not None:
            self.broker = self._given
            return self
        try:
            child = self._stack.enter_context(MosquittoChild(self._directory / "broker"))
        except OSError as error:
            raise UserError(f"--run-dir {self._directory}: {error.strerror}: {error.filename}") from None
        self.broker = BrokerSettings(BrokerAddress.parse(child.url), keepalive=self._keepalive)
        return self

    def __exit__(self, *_: object) -> None:
        if self._fleet is not None:
            self._fleet.stop(STOP_TIMEOUT)
        self._stack.close()

    def start_fleet(self, settings: Settings, fleet: Fleet) -> None:
        """``--clients`` edges in one process tree, and one more that only evaluates."""
        command = [
            sys.executable,
            "-m",
            "fl_edge",
            "--id",
            f"0-{settings.clients - 1}",
            "--evaluator",
            EVALUATOR,
        ]
        if settings.clients == 1:
            command[command.index("0-0")] = "0"
        command += ["--broker", str(self.broker.address), "--prefix", settings.prefix]
        command += ["--state-dir", str(self._directory / "edges"), "--keepalive", str(self.broker.keepalive)]
        for option, value in (
            ("--data", fleet.data),
            ("--device", fleet.device),
            ("--workers", fleet.workers),
        ):
            if value is not None:
                command += [option, str(value)]
        environment = dict(os.environ)
        if self.broker.password is not None:
            environment["FL_PASSWORD"] = self.broker.password
        self._fleet = Leashed(command, self.fleet_log, environment)

    @property
    def fleet_log(self) -> Path:
        return self._directory / "fleet.log"

    def run(self, aggregator: Aggregator) -> Outcome:
        """Runs the aggregator; ends it at once if the fleet dies, and says why it did."""
        done = threading.Event()
        died: list[int] = []

        def watch() -> None:
            while not done.wait(_POLL):
                code = None if self._fleet is None else self._fleet.poll()
                if code is not None:
                    died.append(code)
                    aggregator.interrupt(f"the fleet ended with status {code}")
                    return

        watcher = threading.Thread(target=watch, name="fl-fleet-watch", daemon=True)
        watcher.start()
        try:
            outcome = aggregator.run()
        finally:
            done.set()
            watcher.join()
        if died:
            kind = UserError if died[0] == UserError.exit_code else RunFailed
            assert self._fleet is not None
            raise kind(f"the edges ended (status {died[0]}): {self._fleet.log_tail(3) or self.fleet_log}")
        return outcome

    def predict(self, settings: Settings, payload: bytes) -> m.Prediction:
        """Asks the edges, as any MQTT client may."""
        return predict.ask(self.broker, predict.Request(payload, settings.prefix), PREDICT_TIMEOUT)
