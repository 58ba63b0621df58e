"""Gives the machine its events one at a time, and has their effects performed in order. Knows no broker or clock."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import replace
from typing import Final

from fl_aggregator.aggregation.uploads import InvalidChunk
from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.messaging.inbox import MAX_QUEUED_ITEMS
from fl_aggregator.messaging.outlet import Outlet
from fl_aggregator.messaging.rate_limiter import RateLimiter
from fl_aggregator.messaging.reader import MessageReader
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.monitoring.tracking.trackers import Trackers
from fl_aggregator.monitoring.views import notices
from fl_aggregator.monitoring.views.history import RoundHistory
from fl_aggregator.monitoring.views.two_machines import log_two_machines
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import due, step
from fl_aggregator.round.secrecy import shown_run
from fl_aggregator.round.state import Run
from fl_aggregator.server import resume
from fl_aggregator.server.disk_pause import DiskPause, StoppedWhilePaused
from fl_aggregator.server.interpreter import Interpreter
from fl_aggregator.server.launch import Launch
from fl_aggregator.server.pauses import Pauses
from fl_aggregator.server.resume import RecoveredRun
from fl_shared.errors import ProgramError
from fl_shared.protocol import messages as m
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.system.invocation import aggregator_command

LOG: Final = logging.getLogger(__name__)

Observer = Callable[[Run, tuple[do.Effect, ...], float], float | None]
"""Receives the state after each step, the effects of the step, and the run time in seconds.

It returns the run time at which it wants to be called again, though nothing happens; null for never.
"""


class Runner:
    """The state of a run, and what performs its effects. All methods are for one thread.

    ``post`` takes what a finished job of the worker has left, on any thread. ``clock`` returns run time in seconds.
    ``check`` is called before each effect, and raises if this aggregator may not go on. ``executor``,
    ``real_clock``: see `Interpreter`.
    """

    def __init__(
        self,
        launch: Launch,
        scope: EnvelopeSource,
        outlet: Outlet,
        post: Callable[[JobDone], None],
        reader: MessageReader,
        rejections: Rejections,
        rate_limiter: RateLimiter,
        pauses: Pauses,
        disk_pause: DiskPause,
        trackers: Trackers,
        *,
        clock: Callable[[], float],
        check: Callable[[], None] = lambda: None,
        observer: Observer | None = None,
        executor: Executor | None = None,
        real_clock: Callable[[], float] | None = None,
    ) -> None:
        self._scope = scope
        self._outlet = outlet
        self._reader = reader
        self._pauses = pauses
        self._disk_pause = disk_pause
        self._trackers = trackers
        self._clock = clock
        self._check = check
        self._observer = observer
        self._observer_due: float | None = None
        self._events: deque[on.Event] = deque()
        self.interpreter = Interpreter(
            launch,
            scope,
            outlet,
            post,
            rate_limiter=rate_limiter,
            rejections=rejections,
            delays=reader.delays,
            answers=reader.answers,
            disk_pause=disk_pause,
            trackers=trackers,
            add_event=self._events.append,
            clock=clock,
            executor=executor,
            real_clock=real_clock,
        )
        self.worker = self.interpreter.worker
        if launch.first_weights is not None:
            self.worker.averager.add(0, launch.first_weights)
        self.state = self._recorded_state = launch.snapshot.state

    @property
    def history(self) -> RoundHistory:
        """The rounds that have ended, in earlier incarnations too."""
        return self.interpreter.observer_feed.history

    def uploading(self) -> Collection[str]:
        """Returns the clients whose update is being received or checked, for observers."""
        return self.worker.in_progress()

    def begin(self, recovered: RecoveredRun | None) -> None:
        """Begins the run, or continues it where its journal ends: paused, if the operator had paused it."""
        self._follow_pause(None)
        if recovered is None:
            self.handle(on.Started(now=self._clock()))
            return
        LOG.info("resuming run %s: %s", self._scope.run, resume.resume_point_text(recovered.state))
        lost = self.interpreter.restore(recovered)
        if recovered.entries == 0:
            self.handle(on.Started(now=self._clock()))
        self.handle(on.Resumed(now=self._clock(), incarnation=self._scope.incarnation))
        if lost:
            number = max(recovered.stored)
            LOG.warning(
                "accepted updates of round %d are missing from the spool (%s): abandoning it and opening a new one",
                number,
                ", ".join(lost),
            )
            self.handle(on.UpdatesLost(now=self._clock(), round=number, clients=lost))
        for effect in recovered.effects_to_repeat(self.state):
            self.interpreter.perform(effect, self.state)

    def handle(self, event: on.Event) -> None:
        """Takes one event: records it, then performs its effects. While the disk is full, it waits."""
        if self._disk_pause.waits:
            self._defer(event)
            return
        before = self._recorded_state = self.state
        after, effects = step(before, event)
        for effect in effects:
            if isinstance(effect, do.Record):
                self.interpreter.perform(effect, before)  # before its effects can be seen
        self.state = after
        self._follow_pause(before.paused)
        if after.roster is not before.roster:
            notices.log_presence(event, before, after)
            log_two_machines(event, before, after)
        for effect in effects:
            if not isinstance(effect, do.Record):
                self._check()  # the machine may have slept in the midst of the effects
                self.interpreter.perform(effect, after)
        if self._observer is not None:
            self._observer_due = self._observer(self.state, effects, self._clock())
        secret = self.state.settings.has_secret_cohorts
        self._trackers.observe(shown_run(self.state), () if secret else effects)
        self.interpreter.compactor.add(event, after, effects)

    def _follow_pause(self, before: str | None) -> None:
        """Lets run time stand still while the operator pauses the run; ``before``: why he did so until now."""
        now = self.state.paused
        if now == before:
            return
        if now is not None:
            self._pauses.begin("operator", now)
            LOG.warning("paused: %s; to continue the run: %s", now, aggregator_command("resume"))
        else:
            self._pauses.end("operator")
            LOG.info("resumed by the operator")

    def due(self) -> float:
        """Returns the run time at which something is to be done, though nothing happens; ∞ for never."""
        dues = (due(self.state), self._observer_due, self.interpreter.due())
        return min((at for at in dues if at is not None), default=math.inf)

    def _defer(self, event: on.Event) -> None:
        """Puts an event off while the disk is full, since it cannot be recorded; only a stop takes effect."""
        if isinstance(event, on.StopRequested):
            raise StoppedWhilePaused(event)
        if len(self._events) < MAX_QUEUED_ITEMS:
            self._events.append(event)

    def stop_unrecorded(self, event: on.StopRequested) -> None:
        """Stops a run whose disk is full, so that nothing can be recorded.

        It need not be: the journal has the state before what did not fit.
        """
        self.state, effects = step(self._recorded_state, event)
        for effect in effects:
            if isinstance(effect, do.Answer):
                self.interpreter.perform(effect, self.state)

    def handle_waiting(self) -> None:
        """Takes the events that effects have left, and those of a pause that is over."""
        while self._events:
            self.handle(self._events.popleft())

    def receive_chunk(self, chunk: m.UpdateChunk) -> bool:
        """Takes a piece of an update; returns whether it is new."""
        uploads = self.worker.uploads
        stored_before = uploads.stored_chunks
        try:
            complete = self._disk_pause.attempt(lambda: uploads.receive_chunk(chunk, self._clock()))
        except InvalidChunk as error:
            self._reader.drop(self.state, chunk.client, error.reason, str(error))
            return False
        is_new = uploads.stored_chunks > stored_before
        self._outlet.bytes_up += len(chunk.data)
        if complete is not None:
            self.handle(on.UpdateArrived(now=self._clock(), update=complete))
        return is_new

    def job_done(self, job: JobDone) -> None:
        """Takes the result of a job of the worker. Raises what it has raised."""
        if job.disk_full is not None and job.retry is not None:
            self._disk_pause.wait_for_space(job.disk_full)
            job.retry()
            return
        if isinstance(job.error, OSError | ProgramError):
            raise job.error
        if job.error is not None:
            raise RuntimeError("the aggregation worker failed") from job.error
        if job.event is not None:
            self.handle(replace(job.event, now=self._clock()))
        self.worker.release(job, self._clock())
