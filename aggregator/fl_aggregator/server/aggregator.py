"""The only loop: takes items from the inbox, lets the machine decide, and performs its effects in order."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, assert_never

from fl_aggregator.aggregation.uploads import InvalidChunk
from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.messaging.connections import RIVAL_TOPICS, Connections
from fl_aggregator.messaging.inbox import (
    MAX_QUEUED_ITEMS,
    TICK,
    AdmittedMessage,
    Inbox,
    InboxItem,
    StopRequest,
)
from fl_aggregator.messaging.rate_limiter import RateLimiter
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.messaging.router import Router
from fl_aggregator.messaging.unsealing import Unsealer
from fl_aggregator.monitoring.tracking.trackers import RuntimeMetrics, Trackers
from fl_aggregator.monitoring.views import notices
from fl_aggregator.monitoring.views.history import RoundHistory
from fl_aggregator.monitoring.views.round_record import read_records
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import step
from fl_aggregator.round.state import Finished, Run
from fl_aggregator.server import connection_events, resume
from fl_aggregator.server.disk_pause import DiskPause, StoppedWhilePaused
from fl_aggregator.server.fencing import Fence, Superseded
from fl_aggregator.server.interpreter import Interpreter
from fl_aggregator.server.launch import Launch
from fl_aggregator.server.resume import RecoveredRun
from fl_aggregator.storage.disk_space import DiskFull
from fl_aggregator.storage.run_directory import RUN_FILE
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed, UserError
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.events import CONNECT_TIMEOUT
from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m
from fl_shared.protocol.envelope import EnvelopeSource

LOG: Final = logging.getLogger(__name__)

Observer = Callable[[Run, tuple[do.Effect, ...], float], None]
"""Receives the state after each step, the effects of the step, and the run time in seconds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended; ``seconds`` is its run time."""

    state: Run
    seconds: float


class Aggregator:
    """One run of the aggregator, from its first connection to its last message."""

    def __init__(
        self,
        launch: Launch,
        broker: BrokerAccess,
        *,
        unsealer: Unsealer | None = None,
        observer: Observer | None = None,
        trackers: Trackers | None = None,
    ) -> None:
        """``trackers`` must have been entered as a context manager."""
        self.settings = settings = launch.record.settings
        self._launch = launch
        self.scope = EnvelopeSource(run=launch.record.run, incarnation=launch.record.incarnation)
        self._rate_limiter = RateLimiter(
            settings.prefix, settings.clients, settings.roster_limit, lambda: self._state.roster
        )
        self.inbox = Inbox(self._rate_limiter.admit)
        self.rejections = Rejections()
        self._broker = broker
        self._directory = launch.directory
        self._observer = observer
        self._trackers = Trackers() if trackers is None else trackers
        self._network = Network("fl-aggregator")
        self._connections = Connections(self._network, broker, settings, self.scope, self.inbox)
        unsealer = unsealer or Unsealer(broker.kit, required=False)
        self._router = Router(self._connections, self.rejections, unsealer, self.scope, self._rate_limiter)
        self._fence = Fence(self._connections, self.inbox, self.scope, settings.prefix, broker)
        self._disk_pause = DiskPause(self._fence.get, self._dispatch, self._on_pause)
        self._events: deque[on.Event] = deque()
        self._interpreter = Interpreter(
            launch,
            self.scope,
            self._connections,
            self.inbox,
            rate_limiter=self._rate_limiter,
            rejections=self.rejections,
            delays=self._router.delays,
            disk_pause=self._disk_pause,
            trackers=self._trackers,
            add_event=self._events.append,
            clock=self._now,
        )
        self._worker = self._interpreter.worker
        self._state = self._recorded_state = self._initial_state()
        self._started = time.monotonic()
        self.running = False
        """Whether there is a run that `request_stop` ends cleanly; otherwise there is nothing to save."""
        self._ticked_at = 0.0

    def _initial_state(self) -> Run:
        weights = self._launch.first_weights
        if weights is not None:
            try:
                self._worker.averager.add(0, weights)
            except OSError as error:
                raise self._to_run_failed(error) from None
        return self._launch.snapshot.state

    # --- the loop -----------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Runs until the run is over, and returns how it ended. Raises ``UserError`` and ``RunFailed``."""
        try:
            self._connections.connect(CONNECT_TIMEOUT)
            self._fence.wait_until_free()
            self.running = True
            changes = {"broker": str(self._broker.address), "incarnation": self.scope.incarnation}
            record = self._launch.record.model_copy(update=changes)
            self._directory.write_run(record)
            self._trackers.begin(record, read_records(self._directory.history()), self.runtime_metrics)
            LOG.info("run %s at %s, prefix %s", self.scope.run, self._broker.address, self.settings.prefix)
            if self.attack is not None:
                LOG.warning("%s; this is a test, and its model is of no use", self.attack)
            self._connections.connect_updates()
            self._connections.begin_session()
            self._started = time.monotonic()
            if self._launch.recovered is None:
                self._handle(on.Started(now=self._now()))
            else:
                self._fence.settle()
                self._resume(self._launch.recovered)
            while not self._state.ended:
                self._run_once()
            self._publish_status(force=True)
            if isinstance(self._state.phase, Finished):
                self._interpreter.finish(record)
            return Outcome(self._state, self._now())
        except StoppedWhilePaused as ended:
            # It cannot be recorded, and need not be: the journal has the state before what did not fit.
            self._state, _ = step(self._recorded_state, ended.event)
            self._publish_status(force=True)
            return Outcome(self._state, self._now())
        except Superseded as error:
            self._connections.abandon()
            raise error.with_advice(self._directory.path, self.scope.run) from None
        except OSError as error:
            raise self._to_run_failed(error) from None
        finally:
            if self._state.ended:
                self._trackers.run_ended(self._state.phase.name)
            self._connections.close()  # first: after an error, nobody may wait for what is left to do here
            self._network.close()
            self._worker.close()
            self.running = False

    def _to_run_failed(self, error: OSError) -> RunFailed:
        if isinstance(error, DiskFull):
            return RunFailed(str(error))
        directory = self._directory.path
        has_begun = (directory / RUN_FILE).exists()
        advice = f"continue with --resume {directory}" if has_begun else "start again: no run has begun"
        return RunFailed(
            f"{error.filename or directory}: {error.strerror or error}; when this is fixed, {advice}"
        )

    def _resume(self, recovered: RecoveredRun) -> None:
        """Continues the run where its journal ends; run time did not pass in the meantime."""
        LOG.info("resuming run %s: %s", self.scope.run, resume.resume_point_text(recovered.state))
        self._started -= recovered.snapshot.run_time
        collected = recovered.open_round
        lost = self._interpreter.restore(recovered)
        if recovered.entries == 0:
            self._handle(on.Started(now=self._now()))
        self._handle(on.Resumed(now=self._now(), incarnation=self.scope.incarnation))
        if lost and collected is not None:
            LOG.warning(
                "accepted updates of round %d are missing from the spool (%s): abandoning it and opening a new one",
                collected.round,
                ", ".join(lost),
            )
            self._handle(on.UpdatesLost(now=self._now(), round=collected.round, clients=lost))
        for effect in recovered.effects_to_repeat(self._state):
            self._interpreter.perform(effect, self._state)

    @property
    def history(self) -> RoundHistory:
        """The rounds that have ended, in earlier incarnations too."""
        return self._interpreter.observer_feed.history

    @property
    def attack(self) -> str | None:
        """Who attacks the run and how, null in a run without simulated attackers."""
        return self._launch.record.attack

    @property
    def pause_reason(self) -> str | None:
        """Why the run is paused, and null if it is not. May be read on any thread."""
        return self._disk_pause.reason

    def uploading(self) -> Collection[str]:
        """Returns the clients whose update is being received or checked, for observers."""
        return self._worker.in_progress()

    def runtime_metrics(self) -> RuntimeMetrics:
        """Returns the measurements of this moment. May be called on any thread."""
        return RuntimeMetrics(
            inbox_items=self.inbox.queued_items,
            spool_bytes=self._directory.spool.size,
            bytes_up=self._connections.bytes_up,
            bytes_down=self._connections.bytes_down,
            connected=self._connections.connected,
            paused=self._disk_pause.reason is not None,
            refused=self.rejections.by_reason,
        )

    def request_stop(self, reason: str) -> None:
        """Asks the loop to end the run. May be called in a signal handler."""
        self.inbox.put("control", StopRequest(reason))

    def _now(self) -> float:
        """Run time in seconds."""
        return self._disk_pause.without_pauses(time.monotonic()) - self._started

    def _run_once(self) -> None:
        self._network.check()
        item = self._disk_pause.pop_deferred() or self._fence.get(TICK)
        self._fence.check()
        if item is not None:
            self._dispatch(*item)
        if self._now() - self._ticked_at >= TICK:
            # Here, so that deadlines pass even in a flood of messages.
            self._ticked_at = self._now()
            if (dropped := self.inbox.pop_dropped()) > 0:
                self.rejections.count(None, "no-room", "the inbox is full", dropped)
            self._router.record_throttled(self._state)
            self._connections.run_due_repairs()
            self._handle(on.TimePassed(now=self._ticked_at))
            self._interpreter.repeat_round(self._state)
        while self._events:
            self._handle(self._events.popleft())
        self._worker.uploads.renew_grants(self._now())
        self._publish_status()

    def _handle(self, event: on.Event) -> None:
        if self._disk_pause.reason is not None:
            self._defer(event)
            return
        before = self._recorded_state = self._state
        after, effects = step(before, event)
        for effect in effects:
            if isinstance(effect, do.Record):
                self._interpreter.perform(effect, before)  # before its effects can be seen
        self._state = after
        if after.roster is not before.roster:
            notices.log_presence(event, before, after)
        for effect in effects:
            if not isinstance(effect, do.Record):
                self._fence.check()  # the machine may have slept in the midst of the effects
                self._interpreter.perform(effect, after)
        if self._observer is not None:
            self._observer(self._state, effects, self._now())
        self._trackers.observe(self._state, effects)
        self._interpreter.compactor.add(event, after, effects)

    def _defer(self, event: on.Event) -> None:
        """Puts an event off in a pause, since it cannot be recorded; only a stop takes effect."""
        if isinstance(event, on.StopRequested):
            raise StoppedWhilePaused(event)
        if len(self._events) < MAX_QUEUED_ITEMS:
            self._events.append(event)

    def _on_pause(self) -> None:
        self._network.check()
        self._publish_status()

    # --- what arrives -------------------------------------------------------------------------------------

    def _dispatch(self, connection_name: str, item: InboxItem) -> None:
        match item:
            case JobDone():
                self._on_job_done(item)
            case StopRequest(reason=reason):
                self._handle(on.StopRequested(now=self._now(), reason=reason))
            case AdmittedMessage():
                self._on_message(item)
            case mqtt.Connected() | mqtt.Lost() | mqtt.ConnectRefused() | mqtt.Subscribed():
                event = connection_events.apply(
                    self._connections, self._fence, connection_name, item, self._now()
                )
                if event is not None:
                    self._handle(event)
            case _:
                assert_never(item)

    def _on_message(self, arrival: AdmittedMessage) -> None:
        if isinstance(arrival.topic, RIVAL_TOPICS) and self._fence.hear(arrival.received) is not None:
            return
        inbound = self._router.read(arrival, self._state, self._now())
        if inbound.chunk is not None:
            self._receive_chunk(inbound.chunk, arrival)
        if inbound.reply is not None:
            self._interpreter.perform(inbound.reply, self._state)
        if inbound.event is not None:
            before = self._state
            self._handle(inbound.event)
            if isinstance(inbound.event, on.Evaluated) and self._state is not before:
                self._rate_limiter.give_back(arrival)  # the report was awaited

    def _receive_chunk(self, chunk: m.UpdateChunk, arrival: AdmittedMessage) -> None:
        stored_before = self._worker.uploads.stored_chunks
        try:
            complete = self._disk_pause.attempt(
                lambda: self._worker.uploads.receive_chunk(chunk, self._now())
            )
        except InvalidChunk as error:
            self._router.drop(self._state, chunk.client, error.reason, str(error))
            return
        if self._worker.uploads.stored_chunks > stored_before:
            self._rate_limiter.give_back(arrival)
        self._connections.bytes_up += len(chunk.data)
        if complete is not None:
            self._handle(on.UpdateArrived(now=self._now(), update=complete))

    def _on_job_done(self, job: JobDone) -> None:
        """Handles the result of a job of the worker's thread."""
        if job.disk_full is not None and job.retry is not None:
            self._disk_pause.wait_for_space(job.disk_full)
            job.retry()
            return
        if isinstance(job.error, OSError | UserError):
            raise job.error
        if job.error is not None:
            raise RuntimeError("the aggregation worker failed") from job.error
        if job.event is not None:
            self._handle(replace(job.event, now=self._now()))
        self._worker.release(job, self._now())

    def _publish_status(self, *, force: bool = False) -> None:
        self._interpreter.status_publisher.publish_status(
            self._state, self._now(), self._disk_pause.reason, self.rejections, force=force
        )
