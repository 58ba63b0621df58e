"""The aggregator in virtual time: its runner, without connections, threads and a clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.messaging.rate_limiter import RateLimiter
from fl_aggregator.messaging.reader import MessageReader
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.monitoring.tracking.trackers import Trackers
from fl_aggregator.round import events as on
from fl_aggregator.round import machine
from fl_aggregator.round.state import Run
from fl_aggregator.server.disk_pause import DiskPause
from fl_aggregator.server.launch import Launch
from fl_aggregator.server.pauses import Pauses
from fl_aggregator.server.runner import Observer, Runner
from fl_mqtt.simulation.virtual.network import Network, size_of
from fl_mqtt.simulation.virtual.world import World
from fl_shared.mqtt.events import MAX_MQTT_PACKET
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource


class Aggregator:
    """One incarnation of a run's aggregator. It can be killed at any event, and another one resumes its directory."""

    def __init__(
        self,
        launch: Launch,
        world: World,
        network: Network,
        *,
        observer: Observer | None = None,
        trackers: Trackers | None = None,
        real_clock: Callable[[], float] = time.monotonic,
        job_seconds: Callable[[JobDone], float] = lambda _job: 0.0,
    ) -> None:
        """``trackers`` must have been entered. ``real_clock``: real seconds since the run began.

        ``job_seconds``: the virtual seconds that a job of the worker takes.
        """
        settings, record = launch.record.settings, launch.record
        self.scope = EnvelopeSource(
            run=record.run, incarnation=record.incarnation, started=record.incarnation
        )
        self.rejections = Rejections()
        self._launch = launch
        self._world = world
        self._network = network
        self._job_seconds = job_seconds
        self._worker_free_at = 0.0
        self._alive = True
        self._due = math.inf
        """When it looks next at what is due."""
        self._outlet = _Outlet(network)
        self._reader = MessageReader(self.rejections, self.scope)
        limiter = RateLimiter(
            settings.prefix, settings.clients, settings.roster_limit, lambda: self.state.roster
        )
        self.pauses = Pauses(lambda: world.now)
        disk_pause = DiskPause(self.pauses, _sleep, lambda _name, _item: None, lambda: None)
        self.runner = Runner(
            launch,
            self.scope,
            self._outlet,
            self._post,
            self._reader,
            self.rejections,
            limiter,
            self.pauses,
            disk_pause,
            Trackers() if trackers is None else trackers,
            clock=self._now,
            observer=observer,
            executor=_Inline(),
            real_clock=real_clock,
        )

    @property
    def state(self) -> Run:
        """The state of the run after the last event."""
        return self.runner.state

    @property
    def traffic(self) -> tuple[int, int]:
        """The bytes of updates that have come, and of models that were published, in this incarnation."""
        return self._outlet.bytes_up, self._outlet.bytes_down

    def begin(self) -> None:
        """Begins the run, or continues it where its journal ends."""
        scope = self.scope
        birth = m.AggregatorPresence(
            state="online",
            session=f"{scope.run}-{scope.incarnation}",
            run=scope.run,
            incarnation=scope.incarnation,
            started=scope.started,
        )
        self._outlet.retain(t.AggregatorTopic(), birth)
        self.runner.begin(self._launch.recovered)
        self._network.connect_aggregator(self._receive, birth.model_copy(update={"state": "offline"}))
        self._schedule()

    def stop(self, reason: str) -> None:
        """Ends the run, as the operator does."""
        self._handle(on.StopRequested(now=self._now(), reason=reason))

    def kill(self) -> None:
        """Ends the program without warning: nothing more is recorded or published but its will."""
        self._alive = self._outlet.alive = False
        self.runner.worker.close()
        self._network.disconnect_aggregator()

    # --- what arrives ---------------------------------------------------------------------------------------

    def _receive(self, topic: t.Topic, message: m.Message | None, _retained: bool) -> None:
        if not self._alive or message is None:
            return
        inbound = self._reader.read(topic, message, size_of(message), self.state, self._now())
        if inbound.chunk is not None:
            self.runner.receive_chunk(inbound.chunk)
        if inbound.event is not None:
            self.runner.handle(inbound.event)
        self._after_event()

    def _post(self, job: JobDone) -> None:
        """Takes the result of a job of the worker, once that is done; it does one after the other."""
        self._worker_free_at = max(self._worker_free_at, self._world.now) + self._job_seconds(job)
        self._world.at(self._worker_free_at, lambda: self._job_done(job))

    def _job_done(self, job: JobDone) -> None:
        if self._alive:
            self.runner.job_done(job)
            self._after_event()

    # --- time -----------------------------------------------------------------------------------------------

    def _now(self) -> float:
        """Run time in seconds."""
        return self.pauses.without_pauses()

    def _handle(self, event: on.Event) -> None:
        self.runner.handle(event)
        self._after_event()

    def _after_event(self) -> None:
        self.runner.handle_waiting()
        self._schedule()

    def _schedule(self) -> None:
        """Lets it look again when something is due for the machine, or is to be repeated."""
        if self.state.ended:
            return
        of_machine = machine.due(self.state)
        due = min(self.runner.interpreter.due(), math.inf if of_machine is None else of_machine)
        if due < self._due:
            self._due = due
            paused = self._world.now - self._now()
            self._world.at(due + paused, lambda: self._time_passed(due))

    def _time_passed(self, due: float) -> None:
        if self._alive and due == self._due:
            self._due = math.inf
            self._handle(on.TimePassed(now=self._now()))
            self.runner.interpreter.do_what_is_due(self.state)
            self._schedule()


class _Outlet:
    """Publishes on the network while the aggregator is ``alive``, and counts bytes."""

    def __init__(self, network: Network) -> None:
        self.alive = True
        self.bytes_up = 0
        self.bytes_down = 0
        self.maximum_packet_size = MAX_MQTT_PACKET
        self._network = network

    def send(self, topic: t.Topic, message: m.Message, correlation: bytes | None = None) -> None:
        """See `Outlet.send`."""
        del correlation  # no operator asks anything
        self._publish(topic, message, retain=False)

    def retain(self, topic: t.Topic, message: m.Message, *, counted: bool = True) -> None:
        """See `Outlet.retain`."""
        del counted  # only values count, and watchers get none
        self._publish(topic, message, retain=True)

    def retain_large(self, topic: t.Topic, make: Callable[[], m.Message]) -> None:
        """See `Outlet.retain_large`."""
        self._publish(topic, make(), retain=True)

    def clear(self, topic: t.Topic) -> None:
        """See `Outlet.clear`."""
        if topic in self._network.retained:
            self._publish(topic, None, retain=True)

    def _publish(self, topic: t.Topic, message: m.Message | None, *, retain: bool) -> None:
        if self.alive:
            self.bytes_down += size_of(message)
            self._network.publish(topic, message, retain=retain)


class _Inline(Executor):
    """Does each job at once."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """See `Executor.submit`."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future


def _sleep(seconds: float) -> None:
    """Lets a pause last until there is room on the disk: real seconds, in which virtual time stands still."""
    time.sleep(seconds)
