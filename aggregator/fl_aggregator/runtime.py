"""The only loop: takes what the inbox holds, lets the machine decide, performs its effects in their order."""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, assert_never

from fl_aggregator import effects as do
from fl_aggregator import events as on
from fl_aggregator import strategies, translate, vacancy, views
from fl_aggregator.checkpoint import Model
from fl_aggregator.inbox import Inbox, Item, Signal
from fl_aggregator.links import BrokerSettings, Links
from fl_aggregator.phases import Run, Summary, new_run
from fl_aggregator.publications import CHUNK_SIZE, Publications
from fl_aggregator.round import step
from fl_aggregator.rundir import RunDirectory
from fl_aggregator.settings import Settings
from fl_aggregator.translate import Dropped, Scope
from fl_aggregator.uploads import Misfit
from fl_aggregator.workshop import Done, Workshop
from fl_shared import codec, mqtt
from fl_shared import messages as m
from fl_shared import topics as t
from fl_shared.errors import RunFailed, UserError
from fl_shared.intake import Granted

LOG: Final = logging.getLogger(__name__)

TICK: Final = 0.2
STATUS_EVERY: Final = 5.0
STATUS_AT_MOST_EVERY: Final = 0.5
CONNECT_TIMEOUT: Final = 5.0
RESULTS_RETAINED: Final = 8

OURS: Final = (
    t.AggregatorTopic,
    t.StatusTopic,
    t.SelectedTopic,
    t.ResultTopic,
    t.MissingTopic,
    t.ModelTopic,
    t.ManifestTopic,
    t.ChunkTopic,
    t.WorkTopic,
)
"""Topics on which nobody but the aggregator has anything to say."""

Observer = Callable[[Run, tuple[do.Effect, ...]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended; ``seconds`` of run time."""

    state: Run
    seconds: float


class Aggregator:
    """One run of the aggregator, from its first connection to its last message."""

    def __init__(
        self,
        settings: Settings,
        broker: BrokerSettings,
        directory: RunDirectory,
        *,
        first_weights: Model | None = None,
        chunk_size: int = CHUNK_SIZE,
        observer: Observer | None = None,
    ) -> None:
        self.settings = settings
        self.scope = Scope(run=secrets.token_hex(6), epoch=1)
        self.inbox = Inbox()
        self.dropped: Counter[tuple[str, str]] = Counter()
        self._broker = broker
        self._directory = directory
        self._observer = observer
        self._network = mqtt.Network("fl-aggregator")
        self._links = Links(self._network, broker, settings.prefix, self.scope, self.inbox)
        self._publications = Publications(self._links, self.scope, settings.task, chunk_size)
        self._workshop = Workshop(
            settings,
            strategies.load(settings.strategy),
            directory,
            self._grant,
            lambda done: self.inbox.put("control", done),
        )
        if first_weights is not None:
            self._workshop.averaging.add(0, first_weights)
        self._state = new_run(
            settings,
            None if first_weights is None else m.ModelReference(version=0, digest=first_weights.digest),
            None if first_weights is None else first_weights.manifest.digest,
        )
        self._events: deque[on.Event] = deque()
        self._whole: m.Update | None = None
        self._offered: m.Offer | None = None
        self._started = time.monotonic()
        self._born = False
        self._ticked = 0.0
        self._status_at = -STATUS_EVERY
        self._status_of: Run | None = None
        self._bytes_before: dict[int, tuple[int, int]] = {}
        self._bytes: dict[int, tuple[int, int]] = {}
        self._results: deque[int] = deque()

    # --- the loop -----------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Blocks until the run is over. Raises ``UserError`` and ``RunFailed``."""
        try:
            self._links.connect(CONNECT_TIMEOUT)
            vacancy.stop_if_occupied(
                self._links, self.inbox, self.scope, self.settings.prefix, self._broker.address
            )
            self._directory.write_run(
                self.scope.run, self.settings, str(self._broker.address), prefix=self.settings.prefix
            )
            self._links.take_over()
            self._born = True
            self._links.connect_updates(CONNECT_TIMEOUT)
            self._started = time.monotonic()
            self._handle(on.Started(now=self._now()))
            while not self._state.over:
                self._turn()
            self._publish_status(self._now(), force=True)
            return Outcome(self._state, self._now())
        except OSError as error:
            raise RunFailed(f"{self._directory.path}: {error.strerror or error}") from None
        finally:
            self._workshop.close()
            self._links.close()
            self._network.close()

    def interrupt(self, reason: str) -> None:
        """Asks for the end of the run; may be called from a signal handler's thread."""
        self.inbox.put("control", Signal(reason))

    def _now(self) -> float:
        """Run time in seconds."""
        return time.monotonic() - self._started

    def _turn(self) -> None:
        self._network.check()
        item = self.inbox.get(TICK)
        if item is not None:
            self._take(*item)
        if self._now() - self._ticked >= TICK:
            # Whatever else arrives, and be it junk: deadlines pass.
            self._ticked = self._now()
            self._handle(on.TimePassed(now=self._ticked))
        while self._events:
            self._handle(self._events.popleft())
        self._whole = self._offered = None
        now = self._now()
        self._workshop.uploads.pass_time(now)
        self._publish_status(now)

    def _handle(self, event: on.Event) -> None:
        before = self._state.roster
        self._state, effects = step(self._state, event)
        if self._state.roster is not before:
            self._tell_of(event)
        for effect in effects:
            self._perform(effect)
        if self._observer is not None:
            self._observer(self._state, effects)

    def _tell_of(self, event: on.Event) -> None:
        """Who came and who went."""
        match event:
            case on.Registered(client=client, examples=None, roles=roles):
                LOG.debug("edge %s is here, to %s", client, ", ".join(roles))
            case on.Registered(client=client, examples=examples):
                LOG.debug("edge %s is ready, with %d examples", client, examples)
            case on.EdgeLost(client=client):
                LOG.info("edge %s is offline", client)

    # --- what arrives -------------------------------------------------------------------------------------

    def _take(self, lane: str, item: Item) -> None:
        match item:
            case Done():
                self._done(item)
            case Signal(reason=reason):
                self._handle(on.Interrupted(now=self._now(), reason=reason))
            case mqtt.Received():
                self._received(item)
            case mqtt.Connected():
                self._connected(lane)
            case mqtt.Lost(reason=reason):
                LOG.warning("connection for %s lost: %s; trying again", lane, reason)
            case mqtt.Refused(reason=reason):
                raise UserError(reason)
            case mqtt.Subscribed():
                if item.refused:
                    raise UserError(
                        f"the broker does not let the aggregator read {', '.join(item.refused)}: "
                        "check its account's rights"
                    )
            case _:
                assert_never(item)

    def _connected(self, lane: str) -> None:
        if lane == "updates":
            self._links.take_updates()
            return
        if self._born:
            LOG.warning("connected again: publishing the run's state anew")
            self._links.take_over()
            self._handle(on.Reconnected(now=self._now()))

    def _received(self, received: mqtt.Received) -> None:
        topic = t.parse(self.settings.prefix, received.topic)
        if topic is None:
            self._drop("", "unknown-topic", repr(received.topic[:100]))
            return
        if isinstance(topic, OURS):
            self._links.defend(received.topic, received.payload, retained=received.retain)
            return
        if not received.payload:
            return
        if received.retain and not isinstance(topic, t.PresenceTopic):
            # Edges retain nothing but their presence: this is somebody's mistake, or of another life.
            self._links.clear_foreign(received.topic)
            return
        client = getattr(topic, "client", None) or ""
        try:
            message = codec.decode(topic, received.payload)
            self._of_an_edge(topic, message, len(received.payload))
        except codec.DecodeError as error:
            self._drop(client, "wrong-version" if error.wrong_version else "malformed", str(error))
            if error.wrong_version and client:
                self._answer_unreadable(topic, client, bytes(received.payload))
        except Dropped as error:
            self._drop(client, error.reason, str(error))

    def _of_an_edge(self, topic: t.Topic, message: m.Message, size: int) -> None:
        event = translate.event_from(topic, message, self.scope, self._now(), size)
        if isinstance(message, m.UpdateChunk):
            self._take_chunk(message)
            return
        if isinstance(message, m.Update):
            self._whole = message
        elif isinstance(message, m.Offer):
            self._offered = message
        if event is not None:
            self._handle(event)

    def _answer_unreadable(self, topic: t.Topic, client: str, payload: bytes) -> None:
        """Who speaks another version of the protocol is told so, if it says which session it is.

        Anything else that cannot be read gets no answer: nothing says that the edge named in the topic wrote it.
        """
        session = codec.session_in(payload)
        known = self._state.roster.get(client)
        if isinstance(topic, t.RegisterTopic) and session and (known is None or known.session != session):
            detail = f"protocol version {m.PROTOCOL_VERSION} is spoken here"
            self._perform(do.Reply(client, session, do.Refuse("wrong-version", detail)))

    def _drop(self, client: str, reason: str, detail: str) -> None:
        """A peer's bad data is counted and dropped; said aloud the first time, then at each power of ten."""
        who = client if client in self._state.roster else "somebody unknown"
        self.dropped[who, reason] += 1
        times = self.dropped[who, reason]
        if str(times).strip("0") == "1":
            LOG.warning("dropped from %s (%s, %d times): %s", who, reason, times, detail[:300])

    # --- effects ------------------------------------------------------------------------------------------

    def _perform(self, effect: do.Effect) -> None:
        match effect:
            case do.Record(event=event):
                self._directory.journal.append(event)
            case do.Reply(client=client):
                self._links.send(t.RepliesTopic(client), translate.reply(effect, self.settings, self.scope))
            case do.AnnounceRound():
                self._announce(effect)
            case do.WithdrawRound(round=number):
                self._publications.withdraw(number)
                self._directory.spool.forget(number)
                self._events.extend(
                    on.UpdateOffered(now=self._now(), update=facts)
                    for facts in self._workshop.uploads.end_round()
                )
            case do.Receive(update=update):
                self._receive(update)
            case do.Keep(update=update):
                self._keep(update)
            case do.Fold(update=update):
                self._workshop.fold(update)
            case do.Average():
                self._workshop.average(effect)
            case do.PublishModel(round=number, model=model, evaluate=evaluate):
                averaging = self._workshop.averaging
                self._publications.publish(number, model, averaging.newest, evaluate, averaging.previous)
            case do.PublishResult(summary=summary):
                self._publish_result(summary)
            case do.WriteHistory(summary=summary):
                up, down = self._bytes.pop(summary.round, (0, 0))
                self._directory.append_history(views.history_line(summary, up, down))
            case do.KeepBest(model=model):
                if not self._directory.checkpoints.keep_best(model.version):
                    LOG.warning("version %d is the best so far, but its checkpoint is gone", model.version)
            case do.End():
                pass
            case _:
                assert_never(effect)

    def _grant(self, grant: Granted) -> None:
        offer = grant.offer
        message = m.Grant(
            **self.scope.envelope(),
            client=offer.client,
            session=offer.session,
            round=offer.round,
            digest=offer.digest,
            chunks=grant.chunks,
        )
        self._links.send(t.RepliesTopic(offer.client), message)

    def _announce(self, effect: do.AnnounceRound) -> None:
        if effect.round not in self._bytes_before:
            self._bytes_before = {effect.round: (self._links.bytes_up, self._links.bytes_down)}
            self._workshop.begin_round(effect.base)
        message = translate.selected(
            effect, self.settings, self.scope, self._now(), self._links.maximum_packet_size
        )
        self._publications.announce(message, effect.cohort)

    def _receive(self, update: on.UpdateFacts) -> None:
        assert self._offered is not None, "an offer is taken up in the turn in which it arrived"
        try:
            self._workshop.receive(self._offered, update, self._now())
        except Misfit as error:
            reason: m.RejectionReason = "wrong-size" if error.reason == "wrong-size" else "malformed"
            rejection = do.Reject(update.round, update.digest, reason, str(error))
            self._perform(do.Reply(update.client, update.session, rejection))

    def _take_chunk(self, chunk: m.UpdateChunk) -> None:
        try:
            complete = self._workshop.uploads.take(chunk, self._now())
        except Misfit as error:
            self._drop(chunk.client, error.reason, str(error))
            return
        except OSError as error:
            # Not accepted, so the edge keeps it and offers it again.
            LOG.error("no room for the update of %s: %s", chunk.client, error.strerror)
            return
        self._links.bytes_up += len(chunk.data)
        if complete is not None:
            self._handle(on.UpdateArrived(now=self._now(), update=complete))

    def _keep(self, update: on.UpdateFacts) -> None:
        if self._whole is not None:
            self._links.bytes_up += update.size
        self._workshop.keep(update, self._whole)

    def _done(self, done: Done) -> None:
        """The workshop has finished something."""
        if isinstance(done.error, OSError):
            raise done.error
        if done.error is not None:
            raise RuntimeError("the workshop failed") from done.error
        if done.event is not None:
            self._handle(replace(done.event, now=self._now()))
        self._workshop.settle(done, self._now())

    def _publish_result(self, summary: Summary) -> None:
        number = summary.round
        if number not in self._bytes:
            up, down = self._bytes_before.get(number, (0, 0))
            self._bytes[number] = (self._links.bytes_up - up, self._links.bytes_down - down)
        self._links.retain(t.ResultTopic(number), translate.result(summary, self.scope, *self._bytes[number]))
        if number not in self._results:
            self._results.append(number)
            if len(self._results) > RESULTS_RETAINED:
                self._links.clear(t.ResultTopic(self._results.popleft()))

    # --- telling --------------------------------------------------------------------------------------------

    def _publish_status(self, now: float, *, force: bool = False) -> None:
        changed = self._state is not self._status_of
        since = now - self._status_at
        if not force and since < (STATUS_AT_MOST_EVERY if changed else STATUS_EVERY):
            return
        self._status_at, self._status_of = now, self._state
        self._links.retain(t.StatusTopic(), views.status(self._state, self.scope, now))
        missing = views.missing(self._state, self.scope, now)
        if missing is not None:
            self._links.retain(t.MissingTopic(missing.round), missing)
