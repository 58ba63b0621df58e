"""Performs the effects of the machine; `round.effects.EFFECT_SPECS` says where, and what answers each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict
from typing import Any, assert_never, cast

from fl_aggregator.aggregation.validation import InvalidUpdate
from fl_aggregator.aggregation.worker import AggregationWorker, JobDone
from fl_aggregator.messaging import translate
from fl_aggregator.messaging.commands import AnswerAddress, answer_message
from fl_aggregator.messaging.delays import Delays
from fl_aggregator.messaging.masked_answers import MaskedAnswers
from fl_aggregator.messaging.outlet import Outlet
from fl_aggregator.messaging.publisher import ModelPublisher, StatusPublisher
from fl_aggregator.messaging.rate_limiter import RateLimiter
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.messaging.watcher_feed import ObserverFeed
from fl_aggregator.monitoring.tracking.trackers import Trackers
from fl_aggregator.monitoring.views import notices, status
from fl_aggregator.monitoring.views.round_record import RoundRecord, read_records
from fl_aggregator.monitoring.views.unsteadiness import UnsteadyVersions
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.closing import announcement_of
from fl_aggregator.round.phases import Agreeing, Buffering, Unmasking, buffering_of, unmasking_of
from fl_aggregator.round.state import Run
from fl_aggregator.server.compaction import JournalCompactor
from fl_aggregator.server.disk_pause import DiskPause
from fl_aggregator.server.launch import Launch
from fl_aggregator.server.masked_rounds import MaskedRounds
from fl_aggregator.server.model_publication import ModelPublication
from fl_aggregator.server.resume import RecoveredRun
from fl_aggregator.server.run_files import RunFiles
from fl_aggregator.server.secret_cohorts import draw
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.transfer.upload_scheduler import ChunkGrant


class Interpreter:
    """Performs effects on the loop's thread, and decides nothing: their outcomes become events.

    ``post`` takes what a finished job of the worker has left, on any thread; ``add_event`` puts an event behind those
    that wait; ``clock`` returns run time in seconds. ``executor``: see `AggregationWorker`.
    ``real_clock``: of a run in virtual time, the real seconds since it began.
    """

    def __init__(
        self,
        launch: Launch,
        scope: EnvelopeSource,
        outlet: Outlet,
        post: Callable[[JobDone], None],
        *,
        rate_limiter: RateLimiter,
        rejections: Rejections,
        delays: Delays,
        answers: MaskedAnswers,
        disk_pause: DiskPause,
        trackers: Trackers,
        add_event: Callable[[on.Event], None],
        clock: Callable[[], float],
        executor: Executor | None = None,
        real_clock: Callable[[], float] | None = None,
    ) -> None:
        self._settings = settings = launch.record.settings
        correct = launch.strategy.correct
        self._correction = (
            None if correct is None else m.Correction(name=correct.name, settings=asdict(cast(Any, correct)))
        )
        self._buffering = False
        self._above = launch.above
        self._directory = launch.directory
        self._scope = scope
        self._outlet = outlet
        self._rate_limiter = rate_limiter
        self._rejections = rejections
        self._delays = delays
        self.files = RunFiles(launch, disk_pause)
        self._trackers = trackers
        self._add_event = add_event
        self._clock = clock
        self._real_clock = real_clock
        self._ended_at: dict[int, tuple[float, float]] = {}
        """By round: the virtual and the real time of its end."""
        self.worker = AggregationWorker(
            settings,
            launch.strategy,
            launch.directory,
            self._send_grant,
            post,
            executor,
        )
        self.masked = MaskedRounds(
            outlet, scope, self.worker, answers, disk_pause, clock, settings.partition_at(0)
        )
        self.worker.averager.plain_weights = launch.plain_weights
        self.worker.averager.metadata = launch.record.model_metadata
        started = launch.record.started.removesuffix("+00:00") + "Z"
        is_secret = scope.counts_apart = settings.has_secret_cohorts
        in_progress = frozenset if is_secret else self.worker.in_progress
        self.observer_feed = ObserverFeed(outlet, scope, started, in_progress)
        self.status_publisher = StatusPublisher(outlet, scope, self.observer_feed, launch.record)
        self._model_publisher = ModelPublisher(outlet, scope, settings.task_spec, settings.chunk)
        self._models = ModelPublication(self._model_publisher, self.worker.averager, settings)
        self.compactor = JournalCompactor(launch.directory, launch.snapshot)
        self._stale_notices = notices.StaleNotices()
        self._unsteady = UnsteadyVersions(settings)

    def restore(self, recovered: RecoveredRun) -> tuple[str, ...]:
        """Restores models, history and the open round of a run that is resumed.

        Returns the clients whose accepted update is missing from the spool, sorted.
        """
        if recovered.state.model is not None:
            version, models = recovered.state.version, recovered.checkpoints
            self.worker.averager.restore(
                version,
                models[version],
                models.get(version - 1),
                recovered.strategy_state,
                recovered.served,
            )
        self._unsteady.restore(read_records(self._directory.history()))
        self.observer_feed.restore(
            (record.shown for record in read_records(self._directory.history())),
            () if self._settings.hides_edges else recovered.snapshot.updates.values(),
        )
        stored, open_rounds = recovered.stored, recovered.open_rounds
        accepted = {(update.round, update.client) for updates in stored.values() for update in updates}
        unmasking = unmasking_of(recovered.state.phase)
        opened = {} if unmasking is None else unmasking.opened
        shares = {(unmasking.round, client) for client in opened} if unmasking is not None else set()
        self._directory.spool.delete_except(accepted, open_rounds, shares)
        collected, buffering = recovered.open_round, buffering_of(recovered.state.phase)
        if collected is not None:
            self._begin_round(announcement_of(collected))
        elif buffering is not None:
            self._begin_buffering(buffering)
        lost = [
            client for number, updates in stored.items() for client in self.worker.restore(number, updates)
        ]
        if unmasking is not None:
            lost += self.worker.restore_shares(unmasking.round, opened)
        for number in sorted(open_rounds - stored.keys()):
            self.worker.uploads.restore(number)
        return tuple(sorted(set(lost)))

    def perform(self, effect: do.Effect, state: Run) -> None:
        """Performs one effect; ``state`` is the newest.

        Raises ``OSError`` if the run directory cannot be written to.
        """
        match effect:
            case do.Record():
                self.files.record(effect)
            case do.SendReply():
                self._reply(effect, state)
            case do.Answer(to=AnswerAddress(topic=topic, correlation=correlation)):
                self._outlet.send(topic, answer_message(effect, self._scope), correlation)
            case do.AnnounceRound():
                self._announce(effect)
            case do.Draw():
                cohort = draw(effect.eligible, effect.rate, effect.round, self._settings.dp_insecure_seed)
                self._add_event(on.Drawn(now=self._clock(), round=effect.round, cohort=cohort))
            case do.WithdrawRound(round=number):
                self._withdraw(number)
            case do.IssueTicket():
                self._issue(effect, state)
            case do.WithdrawTicket(client=client, round=number):
                self._model_publisher.end_ticket(client)
                if (update := self.worker.uploads.end_ticket(client, number)) is not None:
                    self._add_event(on.UpdateOffered(now=self._clock(), update=update))
            case do.CloseBuffer(round=number, updates=updates):
                self._model_publisher.clear_missing(number)
                self._directory.spool.delete_updates((update.round, update.client) for update in updates)
                if isinstance(state.phase, Buffering):
                    self.status_publisher.begin_round(state.phase.round)
            case do.Receive():
                self._receive(effect)
            case do.StoreUpdate():
                self._store_update(effect)
            case do.Fold(update=update):
                if not self._settings.hides_edges:  # no numbers of one edge are shown
                    self.observer_feed.update_accepted(update)
                self.worker.fold(effect)
            case do.PublishClosing():
                self.masked.ask_to_sign(effect)
            case do.PublishReveal():
                self.files.record_sum(state)
                self.masked.ask_to_open(effect)
            case do.KeepShares():
                self._add_event(self.masked.keep(effect))
            case do.Average() if self._above is not None:
                self.worker.sum_up(effect, self._above.summed)
            case do.Average():
                self.files.record_sum(state)
                self.worker.average(effect)
            case do.DeclineOrder(round=number, detail=detail):
                if self._above is not None:
                    self._above.declined(number, detail)
            case do.PublishModel(model=model):
                self.files.record_publication(model.version)
                self._models.publish(effect)
            case do.Personalize(model=model):
                self._model_publisher.ask_for_personal(self._settings.personal_training(model.version))
            case do.PublishResult(summary=summary):
                notices.log_single_class(summary)
                self._stale_notices.log(summary)
                self._unsteady.log(summary)
                self._rejections.close_round(summary.round)
                if self._real_clock is not None:
                    self._ended_at.setdefault(summary.round, (self._clock(), self._real_clock()))
                self.status_publisher.publish_result(summary, self._delays.clients(summary.round))
            case do.WriteHistory():
                self._write_history(effect)
            case do.StoreBest(model=model):
                self.files.store_best(model.version)
            case do.EndRun() | do.Answer():
                pass
            case _:
                assert_never(effect)

    def _reply(self, effect: do.SendReply, state: Run) -> None:
        # An edge that says itself that it is unable has done nothing wrong.
        if isinstance(effect.body, do.Reject | do.Refuse) and effect.body.reason != "unable":
            entry = state.roster.get(effect.client)
            known = entry is not None and not entry.unable
            self._rejections.count(effect.client, effect.body.reason, effect.body.detail, known=known)
        answer = translate.reply_message(effect, self._settings, self._scope, self.worker.averager.manifest)
        self._outlet.send(t.RepliesTopic(effect.client), answer)
        match effect.body:
            case do.Admit(examples=int(), awaited=True):  # of a second registration: it can train now
                self._model_publisher.repeat_to(effect.client, self._clock())
            case do.Admit(examples=int()):
                self.masked.registered(effect.client, state)
            case _:
                pass

    def _announce(self, effect: do.AnnounceRound) -> None:
        message = self._begin_round(effect)
        self._rate_limiter.refill(effect.cohort)
        self._model_publisher.announce(message, effect.cohort, self._clock(), secret=effect.secret)

    def _begin_round(self, effect: do.AnnounceRound) -> m.Selected:
        message = translate.selected_message(
            effect,
            self._settings,
            self._correction,
            self._models.companions,
            self._scope,
            self._clock(),
            self._outlet.maximum_packet_size,
        )
        if self.status_publisher.begin_round(effect.round):
            plan = self.masked.begin(message)
            self.worker.begin_round(effect.base, effect.encoding, plan, effect.clip)
        return message

    def _begin_buffering(self, phase: Buffering) -> None:
        if not self._buffering:
            self._buffering = True
            self.worker.begin_round(phase.bases[-1], self._settings.encoding)
        self.status_publisher.begin_round(phase.round)

    def _issue(self, effect: do.IssueTicket, state: Run) -> None:
        phase = buffering_of(state.phase)
        assert phase is not None
        self._begin_buffering(phase)
        self._rate_limiter.refill((effect.client,))
        message = translate.ticket_message(
            effect,
            self._settings,
            self._correction,
            self._scope,
            self._clock(),
            self._outlet.maximum_packet_size,
        )
        self._model_publisher.issue(effect.client, message, self._clock())

    def due(self) -> float:
        """Returns the run time at which `do_what_is_due` does something; ∞ for never."""
        return min(self._model_publisher.due(), self.worker.uploads.due(), self.masked.due())

    def do_what_is_due(self, state: Run) -> None:
        """Publishes the open round or tickets again, for the edges that are waited for; grants overdue chunks again."""
        now = self._clock()
        self.masked.do_what_is_due(state)
        if now >= self._model_publisher.due():
            is_unmasked = isinstance(state.phase, Agreeing | Unmasking)
            self._model_publisher.repeat(() if is_unmasked else status.awaited_clients(state), now)
            self._model_publisher.repeat_tickets(now)
        self.worker.uploads.renew_grants(now)

    def _withdraw(self, number: int) -> None:
        self._buffering = False
        self.masked.end()
        self._model_publisher.withdraw(number)
        self._directory.spool.delete_round(number)
        for update in self.worker.uploads.end_round():
            self._add_event(on.UpdateOffered(now=self._clock(), update=update))

    def _receive(self, effect: do.Receive) -> None:
        update, offer = effect.update, effect.payload
        if offer is None:
            return  # the edge repeats the offer of an upload that the end of its round has stopped (`_withdraw`)
        assert isinstance(offer, m.Offer)
        try:
            complete = self.worker.receive(offer, update, self._clock())
        except InvalidUpdate as error:
            # As an event, so that the edge is dropped from the round: it will not send another update.
            self._add_event(error.event(update, self._clock()))
            return
        if complete is not None:  # all of it came in an earlier incarnation
            self._add_event(on.UpdateArrived(now=self._clock(), update=complete))

    def _store_update(self, effect: do.StoreUpdate) -> None:
        message = effect.payload
        assert isinstance(message, m.Update | None)
        if message is not None:
            self._outlet.bytes_up += effect.update.size
        self.worker.store(effect.update, message)

    def _write_history(self, effect: do.WriteHistory) -> None:
        number = effect.summary.round
        up, down = self.status_publisher.pop_round_bytes(number)
        record = RoundRecord.of(
            effect.summary,
            up,
            down,
            self._rejections.pop_round(number),
            self._delays.clients(number),
            self._ended_at.pop(number, None),
        )
        self.files.append_history(record)
        self._trackers.log_round(record)

    def _send_grant(self, grant: ChunkGrant) -> None:
        offer = grant.offer
        message = m.Grant(
            **self._scope.envelope_to(offer.client),
            client=offer.client,
            session=offer.session,
            round=offer.round,
            digest=offer.digest,
            chunks=grant.chunks,
        )
        self._outlet.send(t.RepliesTopic(offer.client), message)
