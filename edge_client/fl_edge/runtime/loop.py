"""Runs many sessions in one thread, which takes events from one inbox and performs effects in order.

Other threads (the network's, the pool's) only add to the inbox. The loop waits for nothing else.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, assert_never, cast

from fl_edge.messaging.connection import EdgeConnectionEvent
from fl_edge.messaging.model_store import FetchedModel, ModelStore, ModelUser, Transport
from fl_edge.runtime.dispatcher import JobRunner, PredictionResult
from fl_edge.runtime.edge import Edge, ModelServer
from fl_edge.runtime.heartbeat import Heartbeat
from fl_edge.runtime.items import (
    FromConnection,
    FromPredictor,
    Interrupted,
    Item,
    JobEnded,
    RuntimeInbox,
    size_of,
)
from fl_edge.runtime.notices import ConnectionNotices
from fl_edge.runtime.predictors import Predictors
from fl_edge.runtime.registration_window import RegistrationWindow
from fl_edge.runtime.remote_log import RemoteLog
from fl_edge.runtime.router import Router
from fl_edge.runtime.schedule import Schedule
from fl_edge.session import effects, events, machine
from fl_edge.session.masking import UnacceptablePlan
from fl_edge.storage.update_store import UpdateWriter
from fl_edge.workers.jobs import JobResult
from fl_shared.errors import INTERRUPTED
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import topics as t
from fl_shared.tensors.sections import WEIGHTS

LOG = logging.getLogger(__name__)

ANSWERED: Final = (events.Replied, events.ConnectionLost)
"""Events after which a registration of the edge is not waited for."""
MAX_TURN: Final = 0.2
"""Seconds after which the loop does what is due, at the latest, while items keep coming."""
CLOSE_TIMEOUT: Final = 2.0
"""Seconds in which the connection of an edge that stops may still send what is queued."""


class Runtime:
    """Runs the sessions of all edges of a process, in the thread that calls `run`.

    ``broker_timeout``: seconds that all edges together may be without a broker; ``None`` for no limit.
    ``heartbeat`` beats while the loop runs and at least one edge is connected. ``server``: what an edge does with
    announced models, in place of answering predictions. ``listener`` hears each event before its session does.
    ``remote_log`` answers requests for an edge's log; null: none is answered.
    """

    def __init__(
        self,
        edges: Sequence[Edge],
        jobs: JobRunner,
        inbox: RuntimeInbox,
        update_writer: UpdateWriter,
        *,
        prefix: str,
        broker: str,
        broker_timeout: float | None,
        heartbeat: Heartbeat | None = None,
        predict_group: str = t.DEFAULT_PREDICT_GROUP,
        clock: Callable[[], float] = time.monotonic,
        server: Callable[[Edge, ModelStore], ModelServer] | None = None,
        listener: Callable[[events.Event], None] = lambda _event: None,
        remote_log: RemoteLog | None = None,
    ) -> None:
        self._edges = {edge.client: edge for edge in edges}
        self._inbox = inbox
        self._update_writer = update_writer
        self._heartbeat = heartbeat
        self._clock = clock
        self._dispatcher = jobs
        self._store = ModelStore(self._transport, self._model_fetched, self._model_overdue)
        self._events: deque[tuple[Edge, events.Event]] = deque()
        self._interrupted = False
        self._running = len(self._edges)
        self._evaluators = [edge for edge in edges if edge.state.identity.roles == ("evaluate",)]
        self._notices = ConnectionNotices(edges, broker, broker_timeout, clock())
        self._router = Router(
            prefix, self._store, self._notices, self._add_event, self._process_events, remote_log
        )
        self._predictors = Predictors(
            prefix, self._store, jobs, self._enqueue_for_predictions, predict_group, clock()
        )
        self._remote_log = remote_log
        self._registrations = RegistrationWindow(self._registration_leaves)
        self._schedule = Schedule(
            self._store,
            self._notices,
            self._predictors,
            self._registrations,
            inbox,
            heartbeat,
            remote_log,
            clock(),
        )
        for edge in edges:
            if server is not None:
                edge.server = server(edge, self._store)
            elif "predict" in edge.state.identity.roles:
                self._predictors.add(edge)
        self._listener = listener

    # --- the loop -----------------------------------------------------------------------------------------

    def run(self, check: Callable[[], None]) -> int:
        """Runs until all edges have stopped, and returns the exit code.

        ``check`` is called in each turn, and raises if another thread has failed. Raises
        ``BrokerUnreachable`` if there is no broker for too long.
        """
        try:
            return self._run(check)
        except Exception as error:
            # Only its type: its text may have something of the data in it. The will that follows gives no reason.
            for edge in self._edges.values():
                edge.say_leaving(f"an error in its program: {type(error).__name__}")
            raise

    def _run(self, check: Callable[[], None]) -> int:
        for edge in self._edges.values():
            edge.connection = edge.connect(partial(self._enqueue, edge.client))
        while self._running:
            self._handle_arrived()
            check()
            self._run_timers(self._clock())
            self._stop_remaining_evaluators()
            self._process_events()
        states = [edge.state for edge in self._edges.values()]
        # An evaluator that stopped because all other edges had stopped has not failed.
        codes = [s.exit_code for s in states if isinstance(s, machine.Stopped) and s.exit_code != INTERRUPTED]
        return INTERRUPTED if self._interrupted else max(codes, default=0)

    def _handle_arrived(self) -> None:
        """Handles what has arrived, for about `MAX_TURN` seconds, and waits for it until something is due."""
        item = self._get(0.0) or self._get(self._schedule.seconds_until_due(self._clock()))
        until = self._clock() + MAX_TURN
        while item is not None:
            self._handle(item)
            self._schedule.item_handled()
            del item  # it may have a large vector in it
            item = self._get(0.0) if self._running and self._clock() < until else None

    def _stop_remaining_evaluators(self) -> None:
        """Stops the evaluators of a fleet when all of its other edges have stopped."""
        if len(self._evaluators) == len(self._edges) or self._running > len(self._evaluators):
            return
        remaining = [edge for edge in self._evaluators if isinstance(edge.state, machine.Session)]
        if len(remaining) == self._running:
            for edge in remaining:
                ended = "the other edges of its process have ended"
                self._add_event(edge, events.StopRequested(self._clock(), ended))

    def _enqueue(self, client: str, event: EdgeConnectionEvent) -> None:
        """Adds an event of a session's connection to the inbox. Runs on the network thread."""
        self._inbox.put(FromConnection(client, event), size_of(event))

    def _enqueue_for_predictions(self, client: str, event: mqtt.ConnectionEvent) -> None:
        """Adds an event of a predictor's connection to the inbox. Runs on the network thread."""
        self._inbox.put(FromPredictor(client, event), size_of(event), is_prediction_request=True)

    def _get(self, timeout: float) -> Item | None:
        try:
            return self._inbox.get(timeout)
        except queue.Empty:
            return None

    def _handle(self, item: Item) -> None:
        now = self._clock()
        match item:
            case FromConnection(client=client, event=event):
                self._router.on_connection_event(self._edges[client], event, now)
            case FromPredictor(client=client, event=event):
                self._router.on_predictor_event(self._edges[client], event, now)
                self._predictors.used(self._edges[client], now)
            case JobResult():
                owner_and_event = self._dispatcher.job_done(item, now)
                if owner_and_event is not None:
                    self._job_done(self._edges[owner_and_event[0]], owner_and_event[1])
            case JobEnded(client=client, event=make_event):
                self._add_event(self._edges[client], make_event(now))
            case Interrupted():
                self._interrupted = True
                for edge in self._edges.values():
                    self._add_event(edge, events.StopRequested(now))
            case _:
                assert_never(item)
        self._process_events()

    def _add_event(self, edge: Edge, event: events.Event) -> None:
        self._events.append((edge, event))

    def _process_events(self) -> None:
        """Gives the sessions their events and performs the effects, until no event is left."""
        while self._events:
            edge, event = self._events.popleft()
            self._listener(event)
            before, was_running = edge.state, isinstance(edge.state, machine.Session)
            edge.state, effects_to_perform = machine.step(before, event)
            self._running -= was_running and isinstance(edge.state, machine.Stopped)
            if isinstance(event, ANSWERED) or isinstance(edge.state, machine.Stopped):
                self._registrations.settle(edge)
            for effect in effects_to_perform:
                self._perform(edge, effect, event.now)
            if edge.state is not before or edge.scheduled is None:  # else its timer stays
                self._schedule.set(edge, event.now)

    def _run_timers(self, now: float) -> None:
        for edge in self._schedule.pop_due(now):
            self._add_event(edge, events.TimePassed(now))
        self._store.advance(now)
        if self._schedule.pop_chores(now):
            self._do_chores(now)

    def _registration_leaves(self, edge: Edge) -> None:
        self._add_event(edge, events.RegistrationLeaves(self._clock()))

    def _do_chores(self, now: float) -> None:
        self._notices.check(now)
        if self._heartbeat is not None and self._notices.has_broker:
            self._heartbeat.beat(now)
        if (dropped := self._inbox.pop_dropped()) > 0:
            LOG.warning(
                "dropped %d messages: more arrived than fit into the inbox; subscribing again", dropped
            )
            # The broker sends its retained messages again. All others are repeated until they are answered.
            for edge in self._edges.values():
                if edge.connection is not None and edge.connection.is_connected:
                    edge.connection.subscribe()
        self._predictors.advance(now)
        if self._remote_log is not None:
            self._remote_log.advance(now)

    # --- results of the workers and the store -------------------------------------------------------------

    def _job_done(self, edge: Edge, result: events.Event | PredictionResult) -> None:
        if not isinstance(result, PredictionResult):
            self._add_event(edge, result)
        elif edge.predictor is not None:
            edge.predictor.prediction_done(result.id, result.answer, result.seconds, self._clock())

    def _transport(self, client: str) -> Transport | None:
        connection = self._edges[client].connection
        return connection if connection is not None and connection.is_connected else None

    def _model_overdue(self, client: str) -> None:
        self._add_event(self._edges[client], events.ModelOverdue(self._clock()))

    def _model_fetched(self, user: ModelUser, digest: str, model: FetchedModel | None, reason: str) -> None:
        edge, now = self._edges[user.client], self._clock()
        if user.job is None:
            if edge.server is not None:
                edge.server.model_fetched(digest, model, reason, now)
                self._predictors.used(edge, now)
        elif model is None:
            if user.job in edge.model_digests:  # else another of its models has failed before
                self._release_models(edge, user.job)
                self._add_event(edge, events.JobFailed(now, user.job, reason, told=reason))
        elif all(self._store.get(user, one) is not None for one in edge.model_digests[user.job]):
            self._add_event(edge, events.Fetched(now, user.job))

    # --- effects ------------------------------------------------------------------------------------------

    def _perform(self, edge: Edge, effect: effects.Effect, now: float) -> None:
        assert edge.connection is not None
        client = edge.client
        match effect:
            case effects.Send(topic=t.RegisterTopic()):
                self._registrations.put(edge, effect)
            case effects.Send(topic=topic, message=message, retain=retain):
                edge.connection.send(topic, message, retain=retain)
            case effects.SendChunks():
                edge.connection.send_chunks(effect)
            case effects.SaveUpdate(pending=pending):
                self._update_writer.save(edge.update_file, client, pending)
            case effects.DeleteUpdate():
                self._update_writer.delete(edge.update_file)
            case effects.Charge():
                self._add_event(edge, edge.charge(effect, now))
            case effects.StageState(reference=reference, vectors=vectors):
                edge.own_state.stage(reference, vectors)
            case effects.PromoteState():
                edge.own_state.promote()
            case effects.DropState(staged=staged, current=current, personal=personal):
                edge.own_state.drop(staged=staged, current=current, personal=personal)
            case effects.KeepPersonal(reference=reference, vectors=vectors):
                edge.own_state.keep_personal(reference, vectors)
            case effects.Load():
                self._dispatcher.load(client, effect)
            case effects.Fetch(job=job):
                self._fetch(edge, effect, now)
            case effects.Train(job=job, selected=selected, partition=partition):
                base, *companions = [None] if selected.base is None else self._take_models(edge, job)
                manifest = None if base is None else base.weights.manifest
                try:
                    masking = edge.member.masking(selected, partition, manifest)
                except UnacceptablePlan as error:
                    self._add_event(edge, events.JobFailed(now, job, str(error), told=str(error)))
                    return
                own = edge.own_state.current()
                self._dispatcher.train(client, effect, base, [one for one in companions if one], own, masking)
            case effects.Evaluate(job=job, run=run):
                model = self._take_models(edge, job)[0]
                self._dispatcher.evaluate(client, effect, model, edge.local_part(run))
            case effects.Personalize(job=job):
                model = self._take_models(edge, job)[0]
                self._dispatcher.personalize(client, effect, model, edge.own_state.current())
            case effects.MakeRunKeys(run=run):
                self._add_event(edge, edge.member.make_keys(run, now))
            case effects.DropRunKeys():
                edge.member.drop_keys()
            case effects.WorkOutAnswer():
                self._add_event(edge, edge.member.answer(effect, now))
            case effects.Cancel(job=job):
                self._dispatcher.cancel(client, job)
                self._release_models(edge, job)
            case effects.ServeModel(announced=announced):
                if edge.server is not None:
                    edge.server.model_announced(announced, now)
                    self._predictors.used(edge, now)
            case effects.LogNotice(text=text, level=level, told=told):
                LOG.log(getattr(logging, level.upper()), "%s", text, extra={"client": client, "told": told})
            case effects.Disconnect():
                self._disconnect(edge)
            case _:
                assert_never(effect)

    def _fetch(self, edge: Edge, effect: effects.Fetch, now: float) -> None:
        user = ModelUser(edge.client, effect.job)
        asked = {effect.digest: WEIGHTS, **{one.digest: one.section for one in effect.companions}}
        edge.model_digests[effect.job] = tuple(asked)
        for digest, section in asked.items():
            self._store.fetch(user, digest, now, effect.timeout, section)

    def _take_models(self, edge: Edge, job: int) -> list[FetchedModel]:
        """Returns the model that the job has fetched, then its companions, and releases them.

        The pool holds their memory from now on, so the store no longer needs to.
        """
        user = ModelUser(edge.client, job)
        models = [self._store.get(user, digest) for digest in edge.model_digests[job]]
        self._release_models(edge, job)
        return [cast(FetchedModel, model) for model in models]  # a machine starts only what has fetched them

    def _release_models(self, edge: Edge, job: int) -> None:
        for digest in edge.model_digests.pop(job, ()):
            self._store.release(ModelUser(edge.client, job), digest)

    def _disconnect(self, edge: Edge) -> None:
        """Closes an edge's connections; after an interruption, the network closes all of them at once."""
        predictions = edge.server.close() if edge.server is not None else None
        edge.server = edge.predictor = None
        self._notices.closed(edge)
        if self._interrupted:
            return
        assert edge.connection is not None
        edge.connection.close(CLOSE_TIMEOUT)
        if predictions is not None:
            predictions.close(graceful=False)
