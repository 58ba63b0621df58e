"""Publishes the status, results, and models (chunks, manifests, announcements, open rounds), all retained."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fl_aggregator.messaging.outlet import Outlet
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.messaging.watcher_feed import ObserverFeed
from fl_aggregator.monitoring.views import status
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round import secrecy
from fl_aggregator.round.snapshot import RESULTS_RETAINED
from fl_aggregator.round.state import Run, Summary
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.run_directory import RunRecord
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.system.backoff import backoff
from fl_shared.tensors import sections
from fl_shared.transfer import publication as pub

MIN_MODEL_CHUNK: Final = 2**10
"""Bytes; chunks are not cut smaller, however small the packets of the broker are."""
MODEL_CHUNK_OVERHEAD: Final = 2**10
"""Bytes for a chunk's topic, envelope and digest."""
MODELS_RETAINED: Final = 2
"""Versions that stay retained: the newest, which is the base of the open round, and the one before it, which
may still be under evaluation. If means are served, as many of these."""

FIRST_REPEAT_DELAY: Final = 10.0
"""Seconds until an open round is published again; the pause doubles each time, up to `MAX_REPEAT_INTERVAL`."""
MAX_REPEAT_INTERVAL: Final = 60.0


@dataclass(slots=True)
class _Retained:
    """A ticket that is retained since ``at``, and published again at ``repeat_at``, in run time."""

    selected: m.Selected
    at: float
    repeat_at: float
    repeats: int = 0


class ModelPublisher:
    """Publishes versions and open rounds, and clears what is superseded."""

    def __init__(self, outlet: Outlet, scope: EnvelopeSource, task: str, chunk_size: int) -> None:
        self._outlet = outlet
        self._scope = scope
        self._task = task
        self._chunk_size = chunk_size
        self._models: dict[str, pub.ModelPublication] = {}
        self._companions: tuple[str, ...] = ()
        """The digests of those of the newest version; they are in ``_models``, too."""
        self._selected_clients: Sequence[str] = ()
        self._announcement: m.ModelAnnouncement | None = None
        self._open_round: m.Selected | None = None
        self._is_secret = False
        """Whether the open round is told to its cohort only."""
        self._opened_at = self._repeat_at = 0.0
        self._repeats = 0
        self._tickets: dict[str, _Retained] = {}

    def publish(
        self,
        round_number: int,
        reference: m.ModelReference,
        model: Model,
        evaluate: m.Split | None,
        previous: Model | None = None,
        *,
        base: Model | None = None,
        first_version: int | None = None,
        companions: Mapping[str, Model] | None = None,
        is_candidate: bool = False,
    ) -> None:
        """Publishes a version: first its chunks and manifest, then the announcement that names them.

        ``companions``: vectors that only edges in training need with it, by section; those of the version before are
        cleared, since its round is over.

        ``previous`` is the version before it, which stays retained; from now on its chunks are made from this
        model, so that the copy in memory can be freed. If ``model`` is the mean of the versions from ``first_version``
        on, ``base`` is the version itself, which edges train from. ``is_candidate``: the version that was announced
        first stays, and is the one that edges predict with.
        """
        scope = self._scope
        superseded, self._companions = self._companions, ()
        for name, vector in (companions or {}).items():
            self._retain(vector, name)
            self._companions += (vector.digest,)
        if base is not None:
            self._retain(base)
        publication = self._retain(model)
        if previous is not None and previous.digest in self._models:
            previous_publication = self._models[previous.digest]
            self._models[previous.digest] = self._publication(previous, previous_publication.chunk_size)
        announcement = m.ModelAnnouncement(
            **scope.envelope(),
            task=self._task,
            round=round_number,
            version=reference.version,
            digest=model.digest,
            chunks=publication.chunks,
            size=publication.size,
            evaluate=evaluate,
            first_version=first_version,
        )
        served = self._announcement if is_candidate else None
        if served is not None:
            envelope = {**scope.envelope(), "round": round_number, "evaluate": evaluate}
            named = m.ModelReference(version=reference.version, digest=model.digest)
            candidate = None if evaluate is None else named
            announcement = served.model_copy(update={**envelope, "candidate": candidate})
        self._announcement = announcement
        self._outlet.retain(t.ModelTopic(), announcement)
        kept = () if served is None else (served.digest,)
        others = (*superseded, *self._companions, *kept)
        versions = [digest for digest in self._models if digest not in others]
        outdated = versions[: -MODELS_RETAINED * (1 if base is None else 2)]
        for digest in (*outdated, *(set(superseded) - set(self._companions))):
            for topic in self._models.pop(digest).topics():
                self._outlet.clear(topic)

    def ask_for_personal(self, training: m.TrainingRequest) -> None:
        """Announces the newest version once more: edges make models of their own from it."""
        if self._announcement is not None:
            update = {**self._scope.envelope(), "evaluate": "personal", "training": training}
            self._announcement = self._announcement.model_copy(update=update)
            self._outlet.retain(t.ModelTopic(), self._announcement)

    def _retain(self, model: Model, section: str = sections.WEIGHTS) -> pub.ModelPublication:
        """Publishes the chunks and the manifest of a model or a companion, unless they are at the broker already."""
        if model.digest in self._models:
            self._models[model.digest] = publication = self._models.pop(model.digest)
            return publication
        publication = self._publication(model, self._effective_chunk_size(), section)
        self._models[model.digest] = publication
        for topic in publication.topics():
            self._outlet.retain_large(topic, self._message_factory(model.digest, topic))
        return publication

    def _publication(
        self, model: Model, chunk_size: int, section: str = sections.WEIGHTS
    ) -> pub.ModelPublication:
        return pub.model_publication([model.section(section)], chunk_size, model.digest, section)

    def _message_factory(self, digest: str, topic: t.ManifestTopic | t.ChunkTopic) -> Callable[[], m.Message]:
        envelope = self._scope.envelope()  # taken once: when it is repeated, it is the same message

        def make() -> m.Message:
            publication = self._models[digest]
            if isinstance(topic, t.ChunkTopic):
                return publication.chunk(topic.index, **envelope)
            return publication.manifest(**envelope)

        return make

    def _effective_chunk_size(self) -> int:
        """Returns the chunk size, in bytes, as configured, or what fits into the broker's packets."""
        return max(
            MIN_MODEL_CHUNK,
            min(self._chunk_size, self._outlet.maximum_packet_size - MODEL_CHUNK_OVERHEAD),
        )

    def announce(
        self, selected: m.Selected, cohort: Sequence[str], now: float, *, secret: bool = False
    ) -> None:
        """Publishes an open round; again, when its cohort has grown. ``now`` is run time in seconds.

        A cohort that is too large to be named is notified edge by edge, and so is a ``secret`` one: nobody else hears
        of it.
        """
        self._is_secret = secret
        self._open_round, self._opened_at, self._repeats = selected, now, 0
        self._repeat_at = now + FIRST_REPEAT_DELAY
        if selected.cohort is not None:
            self._outlet.retain(t.SelectedTopic(selected.round), selected)
        else:
            for client in cohort[len(self._selected_clients) :]:
                self._outlet.retain(t.WorkTopic(client), self._to(client, selected))
            self._selected_clients = cohort

    def due(self) -> float:
        """Returns the run time at which the open round or a ticket is to be repeated; ∞ if there is none."""
        of_round = math.inf if self._open_round is None else self._repeat_at
        return min((of_round, *(ticket.repeat_at for ticket in self._tickets.values())))

    def repeat(self, awaited: Collection[str], now: float) -> None:
        """Publishes the open round again, if that is `due` and updates of the edges ``awaited`` are missing.

        The broker may have dropped it on its way to an edge, which would never begin.
        """
        selected = self._open_round
        if selected is None or now < self._repeat_at:
            return
        self._repeats += 1
        self._repeat_at = now + backoff(self._repeats, FIRST_REPEAT_DELAY, MAX_REPEAT_INTERVAL)
        if not awaited:
            return
        # Of a secret one, each edge gets an envelope of its own (`_to`).
        envelope = {} if self._is_secret else {**self._scope.envelope()}
        again = self._again(selected, now - self._opened_at, envelope)
        if again.cohort is not None:
            self._outlet.retain(t.SelectedTopic(again.round), again)
        else:
            for client in awaited:
                self._outlet.retain(t.WorkTopic(client), self._to(client, again))

    def repeat_to(self, client: str, now: float) -> None:
        """Sends the open round to a selected edge that has registered, on its own topic.

        Some brokers store no message for ``fl/round/+/selected``, so an edge that has just connected knows of no round.
        """
        if self._open_round is not None:
            again = self._again(self._open_round, now - self._opened_at, self._scope.envelope_to(client))
            self._outlet.send(t.WorkTopic(client), again)

    def issue(self, client: str, selected: m.Selected, now: float) -> None:
        """Publishes a ticket on the edge's own topic. ``now`` is run time in seconds."""
        self._tickets[client] = _Retained(selected, now, now + FIRST_REPEAT_DELAY)
        self._outlet.retain(t.WorkTopic(client), selected)

    def end_ticket(self, client: str) -> None:
        """Clears the retained ticket of an edge."""
        self._tickets.pop(client, None)
        self._outlet.clear(t.WorkTopic(client))

    def repeat_tickets(self, now: float) -> None:
        """Publishes tickets again now and then, as `repeat` does with rounds."""
        for client, ticket in self._tickets.items():
            if now >= ticket.repeat_at:
                ticket.repeats += 1
                ticket.repeat_at = now + backoff(ticket.repeats, FIRST_REPEAT_DELAY, MAX_REPEAT_INTERVAL)
                again = self._again(ticket.selected, now - ticket.at, self._scope.envelope())
                self._outlet.retain(t.WorkTopic(client), again)

    @staticmethod
    def _again(selected: m.Selected, passed: float, envelope: Mapping[str, object]) -> m.Selected:
        left = max(0.0, selected.seconds_left - passed)
        return selected.model_copy(update={**envelope, "seconds_left": left})

    def _to(self, client: str, selected: m.Selected) -> m.Selected:
        """Returns a message to many for one of them: the same one, unless it must not tell how many there are."""
        return (
            selected.model_copy(update={**self._scope.envelope_to(client)}) if self._is_secret else selected
        )

    def withdraw(self, round_number: int) -> None:
        """Clears the retained messages of a round that has ended, except its result."""
        self._open_round = None
        self._outlet.clear(t.SelectedTopic(round_number))
        self.clear_missing(round_number)
        for client in self._selected_clients:
            self._outlet.clear(t.WorkTopic(client))
        self._selected_clients = ()

    def clear_missing(self, round_number: int) -> None:
        """Clears the list of the edges that a round waits for."""
        self._outlet.clear(t.MissingTopic(round_number))


STATUS_INTERVAL: Final = 5.0
"""Seconds after which the status is published again without a change."""


MIN_STATUS_INTERVAL: Final = 0.5
"""Seconds between two statuses, at least, however often the state changes."""


class StatusPublisher:
    """Publishes the status and results, and counts each round's bytes, which are part of its result."""

    def __init__(
        self,
        outlet: Outlet,
        scope: EnvelopeSource,
        observer_feed: ObserverFeed,
        record: RunRecord,
    ) -> None:
        self._outlet = outlet
        self._record = record
        self._observer_feed = observer_feed
        self._scope = scope
        self._published_at = time.monotonic() - STATUS_INTERVAL
        self._published_state: Run | None = None
        self._newest_shown: Run | None = None
        self._paused: str | None = None
        self._bytes_at_start: dict[int, tuple[int, int]] = {}
        self._round_bytes: dict[int, tuple[int, int]] = {}
        self._retained_results: deque[int] = deque()

    def due(self, state: Run) -> float:
        """Returns when `publish_status` publishes something, if the state stays. The clock is ``time.monotonic``."""
        state = self._shown(state)
        return min(self._status_due(state), self._observer_feed.due(state))

    def _shown(self, state: Run) -> Run:
        """Returns the run as it is shown; the same object as before, if that has not changed."""
        shown = secrecy.shown_run(state)
        if shown is state:
            return state
        if self._newest_shown is None or shown != self._newest_shown:
            self._newest_shown = shown
        return self._newest_shown

    def _status_due(self, state: Run) -> float:
        changed = state is not self._published_state
        return self._published_at + (MIN_STATUS_INTERVAL if changed else STATUS_INTERVAL)

    def publish_status(
        self, state: Run, now: float, paused: str | None, rejections: Rejections, *, force: bool = False
    ) -> None:
        """Publishes the status when it has changed, but at most twice a second, and at least every 5 s.

        ``now`` is run time in seconds; ``paused`` says why the run is paused, and is null if it is not.
        ``force`` publishes at once.
        """
        state = self._shown(state)
        self._observer_feed.publish_due(state, force=force)
        at = time.monotonic()  # not run time, which does not pass in a pause
        if not force and paused == self._paused and at < self._status_due(state):
            return
        self._published_at, self._published_state, self._paused = at, state, paused
        secret = state.settings.has_secret_cohorts
        most_rejected = {} if secret else rejections.most_rejected(m.MAX_REFUSED_NAMED)
        self._outlet.retain(
            t.StatusTopic(),
            status.status_message(state, self._scope, now, paused, most_rejected, self._record),
        )
        missing = status.missing_message(state, self._scope, now)
        if missing is not None:
            self._outlet.retain(t.MissingTopic(missing.round), missing)

    def begin_round(self, number: int) -> bool:
        """Begins to count the bytes of a round; False if they are counted already."""
        if number in self._bytes_at_start:
            return False
        self._bytes_at_start = {number: (self._outlet.bytes_up, self._outlet.bytes_down)}
        return True

    def publish_result(self, summary: Summary, delayed: Collection[str]) -> None:
        """Publishes the result of a round, and clears the oldest one that is retained.

        ``delayed``: the edges that have reported a delay in the round.
        """
        number = summary.round
        if number not in self._round_bytes:
            self._round_bytes[number] = self._bytes_since_start(number)
        sizes = self._round_bytes[number]
        if summary.secret:
            summary, sizes, delayed = secrecy.shown_summary(summary), (0, 0), ()
        record = RoundRecord.of(summary, *sizes, delayed=delayed)
        self._observer_feed.round_ended(summary, record)
        self._outlet.retain(t.ResultTopic(number), record.result_message(self._scope.envelope()))
        if number not in self._retained_results:
            self._retained_results.append(number)
            if len(self._retained_results) > RESULTS_RETAINED:
                self._outlet.clear(t.ResultTopic(self._retained_results.popleft()))

    def _bytes_since_start(self, number: int) -> tuple[int, int]:
        at_start = self._bytes_at_start.get(number)
        if at_start is None:
            # It ended in an earlier incarnation, and may not be in the history yet.
            return self._observer_feed.bytes_of(number) or (0, 0)
        return self._outlet.bytes_up - at_start[0], self._outlet.bytes_down - at_start[1]

    def pop_round_bytes(self, number: int) -> tuple[int, int]:
        """Returns the bytes (up, down) of a round that has its result, and forgets them."""
        return self._round_bytes.pop(number, (0, 0))
