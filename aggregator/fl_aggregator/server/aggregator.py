"""The only loop: takes items from the inbox, and gives the machine the events that they mean."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from typing import assert_never

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.messaging.connections import RIVAL_TOPICS, Connections
from fl_aggregator.messaging.home_assistant import HomeAssistantDevice
from fl_aggregator.messaging.inbox import (
    TICK,
    AdmittedMessage,
    Inbox,
    InboxItem,
    SomethingDropped,
    StopRequest,
)
from fl_aggregator.messaging.rate_limiter import RateLimiter
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.messaging.router import Router
from fl_aggregator.messaging.unsealing import Unsealer
from fl_aggregator.monitoring.tracking.trackers import RuntimeMetrics, Trackers
from fl_aggregator.monitoring.views.beginning import log_beginning
from fl_aggregator.monitoring.views.history import RoundHistory
from fl_aggregator.monitoring.views.round_record import read_records
from fl_aggregator.monitoring.views.status import service_line
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Finished
from fl_aggregator.round.state import Run
from fl_aggregator.server import connection_events
from fl_aggregator.server.disk_pause import DiskPause, StoppedWhilePaused
from fl_aggregator.server.fencing import Arrival, Fence, Superseded
from fl_aggregator.server.launch import Launch
from fl_aggregator.server.outcome import Outcome
from fl_aggregator.server.pauses import Pauses
from fl_aggregator.server.revocation_file import RevocationFile
from fl_aggregator.server.runner import Observer, Runner
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.run_directory import RunRecord
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.events import CONNECT_TIMEOUT
from fl_shared.mqtt.network import Network
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.security.revocations import RevocationList
from fl_shared.system.service import Service


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
        home_assistant: str | None = None,
    ) -> None:
        """``trackers`` must have been entered as a context manager.

        ``home_assistant``: the prefix under which the run is announced to Home Assistant; null for nowhere.
        """
        self.settings = settings = launch.record.settings
        launch.record.certified = broker.kit is not None and (
            launch.recovered is None or launch.record.certified
        )
        self._launch = launch
        self.scope = EnvelopeSource(run=launch.record.run, incarnation=launch.record.incarnation)
        self._rate_limiter = RateLimiter(
            settings.prefix,
            settings.clients,
            settings.roster_limit,
            lambda: self.state.roster,
            on_dropped=lambda: self.inbox.put("control", SomethingDropped()),
        )
        self.inbox = Inbox(self._rate_limiter.admit)
        self.rejections = Rejections()
        self._broker = broker
        self._directory = launch.directory
        self._network = Network("fl-aggregator")
        self._connections = Connections(self._network, broker, settings, self.scope, self.inbox)
        unsealer = unsealer or Unsealer(broker.kit, required=False)
        enrolment = None if broker.kit is None else broker.kit.enrolment_public
        self._router = Router(
            self._connections, self.rejections, unsealer, self.scope, self._rate_limiter, enrolment=enrolment
        )
        self._revocation_file = RevocationFile.beside_kit(broker, launch.snapshot.state.revocations)
        self._service = Service()
        self._home_assistant = (
            None
            if home_assistant is None
            else HomeAssistantDevice(
                self._connections,
                home_assistant,
                settings.prefix,
                self.scope.run,
                with_buttons=broker.kit is None,
            )
        )
        self._fence = Fence(self._connections, self.inbox, self.scope, settings.prefix, broker)
        self._pauses = Pauses(time.monotonic)
        self._disk_pause = DiskPause(self._pauses, self._fence.get, self._dispatch, self._on_pause)
        self._trackers = Trackers() if trackers is None else trackers
        try:
            self._runner = Runner(
                launch,
                self.scope,
                self._connections,
                lambda done: self.inbox.put("control", done),
                self._router.reader,
                self.rejections,
                self._rate_limiter,
                self._pauses,
                self._disk_pause,
                self._trackers,
                clock=self._now,
                check=self._fence.check,
                observer=observer,
            )
        except OSError as error:
            raise launch.failed(error) from None
        self._interpreter, self._worker = self._runner.interpreter, self._runner.worker
        self._started = time.monotonic()
        self.running = False
        """Whether there is a run that `request_stop` ends cleanly; otherwise there is nothing to save."""
        self._ticked_at = 0.0

    @property
    def state(self) -> Run:
        """The state of the run after the last event."""
        return self._runner.state

    # --- the loop -----------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Runs until the run is over, and returns how it ended. Raises ``UserError`` and ``RunFailed``."""
        try:
            revoked = self._revocation_file.read_first()
            self._connections.connect(CONNECT_TIMEOUT)
            self._fence.wait_until_free()
            self.running = True
            changes = {"broker": str(self._broker.address), "incarnation": self.scope.incarnation}
            record = self._launch.record.model_copy(update=changes)
            self._directory.write_run(record)
            self._trackers.begin(record, read_records(self._directory.history()), self.runtime_metrics)
            log_beginning(record)
            self._connections.connect_updates()
            self._connections.begin_session()
            self._service.ready()
            self._started = time.monotonic()
            if self._launch.recovered is not None:
                self._fence.settle()
                self._started -= self._launch.snapshot.run_time  # it did not pass in the meantime
            self._runner.begin(self._launch.recovered)
            self._obey(revoked)
            while not self.state.ended:
                self._run_once()
            self._publish_status(force=True)
            if isinstance(self.state.phase, Finished):
                self._interpreter.files.finish(record)
            return Outcome(self.state, self._now())
        except StoppedWhilePaused as ended:
            self._runner.stop_unrecorded(ended.event)
            self._publish_status(force=True)
            return Outcome(self.state, self._now())
        except Superseded as error:
            self._connections.abandon()
            raise error.with_advice(self._directory.path, self.scope.run) from None
        except OSError as error:
            raise self._launch.failed(error) from None
        finally:
            if self.state.ended:
                self._trackers.run_ended(self.state.phase.name)
            self._service.stopping()
            self._connections.close()  # before all else: after an error, nobody may wait for what is left to do here
            self._network.close()
            self._worker.close()
            if isinstance(self.state.phase, Finished):
                self._directory.spool.delete_except((), ())  # what was stored when nothing more was awaited
            self.running = False

    @property
    def history(self) -> RoundHistory:
        """The rounds that have ended, in earlier incarnations too."""
        return self._runner.history

    @property
    def record(self) -> RunRecord:
        """What ``run.json`` says of it."""
        return self._launch.record

    @property
    def pause_reason(self) -> str | None:
        """Why the run is paused, and null if it is not. May be read on any thread."""
        return self._pauses.reason

    @property
    def shared_values(self) -> int | None:
        """How many values the run's model has, without those that stay on the edges; null if it is not known yet."""
        averager = self._worker.averager
        return None if averager.newest_version is None else averager.newest.manifest.values

    def take_version(self, version: int, model: Model, event: on.Event | None) -> None:
        """Of a region: takes a version of the run above, and then an event. May be called on any thread."""
        self._worker.take_version(version, model, event)

    def take(self, event: on.Event) -> None:
        """Of a region: takes what the run above says, behind all versions taken before. May be called on any thread."""
        self._worker.take_event(event)

    def uploading(self) -> Collection[str]:
        """Returns the clients whose update is being received or checked, for observers."""
        return self._runner.uploading()

    def runtime_metrics(self) -> RuntimeMetrics:
        """Returns the measurements of this moment. May be called on any thread."""
        return RuntimeMetrics(
            inbox_items=self.inbox.queued_items,
            spool_bytes=self._directory.spool.size,
            bytes_up=self._connections.bytes_up,
            bytes_down=self._connections.bytes_down,
            connected=self._connections.connected,
            paused=self._pauses.reason is not None,
            refused=self.rejections.by_reason,
        )

    def request_stop(self, reason: str) -> None:
        """Asks the loop to end the run. May be called in a signal handler."""
        self.inbox.put("control", StopRequest(reason))

    def _now(self) -> float:
        """Run time in seconds."""
        return self._pauses.without_pauses() - self._started

    def _run_once(self) -> None:
        self._network.check()
        has_arrived = self._handle_arrived()
        if self._fence.is_unsure:
            return  # no round may end until it knows that no other aggregator has taken over
        if not has_arrived or self.state.paused is not None or self._now() - self._ticked_at >= TICK:
            # Also after items, so that deadlines pass even in a flood of messages.
            self._ticked_at = self._now()
            if (dropped := self.inbox.pop_dropped()) > 0:
                self.rejections.count(None, "no-room", "the inbox is full", dropped)
            self._router.record_throttled(self.state)
            self._connections.run_due_repairs()
            self._runner.handle(on.TimePassed(now=self._ticked_at))
        self._obey(self._revocation_file.poll())
        self._runner.handle_waiting()
        self._interpreter.do_what_is_due(self.state)
        self._publish_status()
        self._tell_service()

    def _handle_arrived(self) -> bool:
        """Handles what has arrived, for about `TICK` seconds, and waits for it until something is due.

        Returns whether anything has.
        """
        item = self._pop() or self._fence.get(self._seconds_until_due())
        has_arrived, until = item is not None, time.monotonic() + TICK
        while True:
            self._fence.check()
            if item is None:
                return has_arrived
            if self._fence.lets_through(*item):
                self._dispatch(*item)
            if not self._fence.is_unsure:
                self._runner.handle_waiting()
            if self.state.ended or time.monotonic() >= until:
                return True
            item = self._pop()

    def _pop(self) -> Arrival | None:
        """Returns the next item that has arrived, if any."""
        return self._disk_pause.pop_deferred() or self._fence.get(0.0)

    def _tell_service(self) -> None:
        """Reports that the loop is running, also in a pause, and what it does."""
        connected, paused = self._connections.connected, self._pauses.reason
        self._service.turn(time.monotonic(), lambda: service_line(self.state, connected, paused))

    def _seconds_until_due(self) -> float:
        """Returns how long the loop may wait for an item, since nothing else is to be done until then."""
        if self._fence.is_unsure:
            return TICK
        has_dropped = self._rate_limiter.has_throttled or self.inbox.has_dropped
        in_run_time = (self._runner.due(), self._ticked_at + TICK if has_dropped else math.inf)
        status_due = self._interpreter.status_publisher.due(self.state)
        monotonic = (self._connections.due(), status_due, self._revocation_file.due(), self._service.due)
        return max(0.0, min(min(in_run_time) - self._now(), min(monotonic) - time.monotonic()))

    def _on_pause(self) -> None:
        self._network.check()
        self._publish_status()
        self._tell_service()

    # --- what arrives -------------------------------------------------------------------------------------

    def _dispatch(self, connection_name: str, item: InboxItem) -> None:
        match item:
            case JobDone():
                self._runner.job_done(item)
            case SomethingDropped():
                pass  # it has woken the loop
            case StopRequest(reason=reason):
                self._runner.handle(on.StopRequested(now=self._now(), reason=reason))
            case AdmittedMessage():
                self._on_message(item)
            case mqtt.Connected() | mqtt.Lost() | mqtt.ConnectRefused() | mqtt.Subscribed():
                event = connection_events.apply(
                    self._connections, self._fence, connection_name, item, self._now()
                )
                if event is not None:
                    self._runner.handle(event)
            case _:
                assert_never(item)

    def _on_message(self, arrival: AdmittedMessage) -> None:
        if isinstance(arrival.topic, RIVAL_TOPICS) and self._fence.hear(arrival.received) is not None:
            return
        inbound = self._router.read(arrival, self.state, self._now())
        if inbound.chunk is not None and self._runner.receive_chunk(inbound.chunk):
            self._rate_limiter.give_back(arrival)
        if inbound.reply is not None:
            self._interpreter.perform(inbound.reply, self.state)
        if inbound.event is not None:
            before = self.state
            self._runner.handle(inbound.event)
            if isinstance(inbound.event, on.Evaluated) and self.state is not before:
                self._rate_limiter.give_back(arrival)  # the report was awaited

    def _obey(self, newest: RevocationList | None) -> None:
        """Refuses what the revoked kits of a new list send from now on, and takes their edges for lost."""
        if newest is None:
            return
        clients = self._router.revoked.replace(newest, self.state.roster)
        self._runner.handle(on.KitsRevoked(now=self._now(), number=newest.number, clients=clients))

    def _publish_status(self, *, force: bool = False) -> None:
        if self._home_assistant is not None:
            self._home_assistant.publish_due(self.state)
        self._interpreter.status_publisher.publish_status(
            self.state, self._now(), self._pauses.reason, self.rejections, force=force
        )
