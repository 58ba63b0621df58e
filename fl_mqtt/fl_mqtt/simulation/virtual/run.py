"""A run in virtual time, as the command line and the library use it: it looks like an aggregator's."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.monitoring.tracking.trackers import RuntimeMetrics, Trackers
from fl_aggregator.monitoring.views.beginning import log_beginning
from fl_aggregator.monitoring.views.history import RoundHistory
from fl_aggregator.monitoring.views.round_record import read_records
from fl_aggregator.monitoring.views.status import awaited_clients
from fl_aggregator.round.phases import Finished
from fl_aggregator.round.state import Run
from fl_aggregator.server.disk_pause import StoppedWhilePaused
from fl_aggregator.server.launch import Launch
from fl_aggregator.server.outcome import Outcome
from fl_aggregator.server.runner import Observer
from fl_aggregator.storage.run_directory import (
    LABEL_COUNTS_FILE,
    RUN_FILE,
    FleetRecord,
    RunRecord,
)
from fl_edge.runtime.device import training_device
from fl_edge.runtime.items import RuntimeInbox
from fl_edge.runtime.worker_setup import (
    EdgeSettings,
    edges_with_data,
    start_pool,
    usable_cores,
)
from fl_edge.storage.label_counts_file import LabelCountsFile
from fl_edge.tasks.registry import task_class
from fl_edge.tasks.synthetic import parameter_count
from fl_edge.training.factory import has_torch
from fl_edge.workers.process import WORKER
from fl_mqtt.simulation.local import ATTACKING, EVALUATOR, check_fleet_possible
from fl_mqtt.simulation.virtual.aggregator import Aggregator
from fl_mqtt.simulation.virtual.devices import Devices
from fl_mqtt.simulation.virtual.fleet import Fleet
from fl_mqtt.simulation.virtual.jobs import PoolJobs
from fl_mqtt.simulation.virtual.network import Network
from fl_mqtt.simulation.virtual.specification import OPTION, read_specification
from fl_mqtt.simulation.virtual.world import World
from fl_shared.errors import RunFailed, UserError
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.protocol.task_spec import task_name

CHUNK_SIZE: Final = 2**20
"""Bytes of a chunk of a large update."""


class Interrupted(Exception):
    """The run is to stop, while it waits for a worker."""


class VirtualRun:
    """One run, or its continuation. `run` may be called once.

    ``trackers`` must have been entered as a context manager. Raises ``UserError`` if the devices are not those with
    which the run began.
    """

    def __init__(
        self, launch: Launch, observer: Observer | None = None, trackers: Trackers | None = None
    ) -> None:
        self._launch = launch
        self._directory = launch.directory
        self._trackers = Trackers() if trackers is None else trackers
        settings, fleet = launch.record.settings, launch.record.fleet
        assert fleet is not None
        self._settings, self._record = settings, fleet
        check_fleet_possible(settings.task, fleet.options.get("device"))
        self._devices = _devices(fleet, settings)
        self._world = World(launch.snapshot.run_time)
        self._network = Network(self._world, self._devices.losses(launch.record.incarnation))
        earlier = [record.real_seconds or 0.0 for record in read_records(launch.directory.history())]
        self._began = time.monotonic() - max(earlier, default=0.0)
        self._aggregator = Aggregator(
            launch,
            self._world,
            self._network,
            observer=observer,
            trackers=self._trackers,
            real_clock=self._real_seconds,
        )
        self._stop_reason: str | None = None
        self.running = False
        """Whether there is a run that `request_stop` ends cleanly; otherwise there is nothing to save."""

    # --- what an aggregator tells ---------------------------------------------------------------------------

    @property
    def scope(self) -> EnvelopeSource:
        """Which run this is, and which start of it."""
        return self._aggregator.scope

    @property
    def rejections(self) -> Rejections:
        """What was refused."""
        return self._aggregator.rejections

    @property
    def history(self) -> RoundHistory:
        """The rounds that have ended, in earlier incarnations too."""
        return self._aggregator.runner.history

    @property
    def record(self) -> RunRecord:
        """What ``run.json`` says of it."""
        return self._launch.record

    @property
    def pause_reason(self) -> str | None:
        """Why the run is paused, and null if it is not. May be read on any thread."""
        return self._aggregator.pauses.reason

    def uploading(self) -> Collection[str]:
        """Returns the clients whose update is being received or checked, for observers."""
        return self._aggregator.runner.uploading()

    def request_stop(self, reason: str) -> None:
        """Asks the run to end. May be called in a signal handler."""
        self._stop_reason = reason

    @property
    def _state(self) -> Run:
        return self._aggregator.state

    def _real_seconds(self) -> float:
        return time.monotonic() - self._began

    def _metrics(self) -> RuntimeMetrics:
        up, down = self._aggregator.traffic
        return RuntimeMetrics(
            inbox_items=0,
            spool_bytes=self._directory.spool.size,
            bytes_up=up,
            bytes_down=down,
            connected=True,
            paused=self.pause_reason is not None,
            refused=self.rejections.by_reason,
        )

    # --- the run --------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Runs until the run is over, and returns how it ended. Raises ``UserError`` and ``RunFailed``."""
        record = self._launch.record
        try:
            with ExitStack() as stack:
                fleet = self._start_fleet(stack)
                self.running = True
                self._directory.write_run(record)
                self._trackers.begin(record, read_records(self._directory.history()), self._metrics)
                log_beginning(record)
                self._aggregator.begin()
                self._loop(fleet)
                if isinstance(self._state.phase, Finished):
                    self._aggregator.runner.interpreter.files.finish(record)
                return self._outcome()
        except StoppedWhilePaused as ended:
            self._aggregator.runner.stop_unrecorded(ended.event)
            return self._outcome()
        except OSError as error:
            raise self._launch.failed(error) from None
        finally:
            if self._state.ended:
                self._trackers.run_ended(self._state.phase.name)
            self._aggregator.kill()
            self.running = False

    def _outcome(self) -> Outcome:
        return Outcome(self._state, self._world.now, self._real_seconds())

    def _loop(self, fleet: Fleet) -> None:
        try:
            while not self._state.ended:
                self._check()
                if not self._world.step():
                    awaited = ", ".join(awaited_clients(self._state)) or "edges"
                    raise RunFailed(
                        f"nothing is left that could happen: the run is {self._state.phase.name}, and waits for "
                        f"{awaited}; start its edges anew with --resume {self._directory.path}"
                    )
                if fleet.stopped is not None and not self._state.ended:
                    if not self._state.begun and self.scope.incarnation == 1:
                        (self._directory.path / RUN_FILE).unlink(missing_ok=True)
                    raise UserError(f"the edges have ended: {fleet.stopped}")
        except Interrupted as interrupted:
            self._aggregator.stop(str(interrupted))

    def _check(self) -> None:
        if self._stop_reason is not None:
            reason, self._stop_reason = self._stop_reason, None
            raise Interrupted(reason)

    def _start_fleet(self, stack: ExitStack) -> Fleet:
        settings, options, attack = self._settings, self._record.options, self._record.attack
        directory, light = self._directory.path, not has_torch()
        names = [str(number) for number in range(settings.clients)]
        edges = tuple(EdgeSettings(name, ("train",), directory / "edges" / name) for name in names)
        edges += (EdgeSettings(EVALUATOR, ("evaluate",), directory / "edges" / EVALUATOR),)
        data = options.get("data")
        workers = int(str(options.get("workers") or min(usable_cores(), len(edges))))
        program = (
            WORKER
            if attack is None
            else (ATTACKING, "worker", attack.specification, str(settings.clients), settings.task)
        )
        inbox = RuntimeInbox()
        device = training_device(str(options.get("device") or "cpu"), settings.task, light=light)
        pool = start_pool(
            settings.task,
            None if data is None else Path(str(data)),
            device,
            workers,
            inbox.put,
            light=light,
            program=program,
        )
        stack.callback(pool.close)
        edges = edges_with_data(pool, inbox, settings.task_spec, edges)
        label_counts = LabelCountsFile(directory / LABEL_COUNTS_FILE)
        jobs = PoolJobs(pool, inbox, workers, label_counts, self._check)
        return Fleet(
            self._world,
            self._network,
            jobs,
            self._devices,
            edges,
            task=settings.task_spec,
            epochs=default_epochs(settings),
            light=light,
            chunk_size=CHUNK_SIZE,
        )


def _devices(fleet: FleetRecord, settings: Settings) -> Devices:
    recorded = fleet.virtual
    assert recorded is not None
    specification = read_specification(recorded.heterogeneity)
    if specification.sha256 != recorded.sha256:
        raise UserError(
            f"{OPTION}: {recorded.heterogeneity}: the file, or one that it names, is not what it was when the run "
            "began: restore it, or begin a new run"
        )
    return Devices(specification, settings.seed)


def default_epochs(settings: Settings) -> int:
    """Returns the epochs of a round's training: what the settings say, or the task."""
    if settings.epochs is not None:
        return settings.epochs
    name = task_name(settings.task)
    return 1 if parameter_count(name) is not None else task_class(name).defaults.epochs
