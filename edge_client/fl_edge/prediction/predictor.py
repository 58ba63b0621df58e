"""Answers prediction requests (protocol, section 7): each edge has a `Predictor` with its own connection.

The connection is opened when the first model is here, and outlives runs and aggregators. A newer model is
fetched only when a request needs it (`newest_model`), since most versions of a run are never used for a prediction.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from fl_edge.messaging.model_store import FetchedModel, ModelStore
from fl_edge.prediction.newest_model import ADVANCE_INTERVAL, NewestModel
from fl_edge.prediction.rate_limit import PredictionRateLimiter
from fl_shared.errors import MessageTooLarge, QueueFull
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.connection import Connection
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.limits import MAX_REQUEST
from fl_shared.system.flood_control import is_worth_logging

LOG = logging.getLogger(__name__)

MAX_REQUEST_PACKET: Final = 64 * 2**20
"""Bytes. Requests larger than `MAX_REQUEST` get an error; packets larger than this are dropped by the
broker."""
MAX_PENDING_REQUESTS: Final = 32
"""Requests that one edge has at a time; further ones are answered with ``busy``."""
MAX_PENDING_PER_ASKER: Final = 8
"""The same for requests with one response topic, or with none."""


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """A request that waits for its answer.

    ``response_topic`` is ``None`` if the request has none, or one that the protocol does not allow. The
    answer repeats ``correlation_data``, MQTT's Correlation Data. ``by_name``: it came on the edge's own topic.
    """

    payload: bytes = field(repr=False)
    response_topic: str | None
    correlation_data: bytes | None
    by_name: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a prediction: ``output``, which JSON can express, or ``error``, perhaps with an ``example``."""

    output: dict[str, Any] | None = None
    error: str | None = None
    example: Any = None


class Started(NamedTuple):
    """A prediction that has begun; ``job`` ends with `Predictor.prediction_done`.

    ``personal``: the model is this edge's own, wholly or in part. ``personal_part``: only a part of it is.
    """

    job: int
    personal: bool
    personal_part: bool


class PredictionBackend(Protocol):
    """Where predictions are made."""

    def predict(
        self,
        announced: m.ModelAnnouncement,
        model: FetchedModel,
        payload: bytes,
        asker: str | None,
        *,
        by_name: bool,
    ) -> Started:
        """Starts a prediction with ``model``, which was ``announced``, or with what this edge has made of it.

        ``by_name``: this edge was asked, and no other. The askers of waiting predictions take turns.
        """


class Predictor:
    """Answers the prediction requests to one edge. Only the loop's thread may call it.

    ``connect`` opens its connection; requests come in the share group ``group``. The rate limiter may be
    shared with other predictors. All times are in seconds.
    """

    def __init__(
        self,
        client: str,
        prefix: str,
        store: ModelStore,
        backend: PredictionBackend,
        connect: Callable[[], Connection],
        first_seq: int,
        rate_limiter: PredictionRateLimiter,
        group: str,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._backend = backend
        self._connect = connect
        self._group = group
        self._rate_limiter = rate_limiter
        self._seq = itertools.count(first_seq)
        self._connection: Connection | None = None
        self._model = NewestModel(client, store)
        self._waiting: deque[PredictionRequest] = deque()
        self._running: dict[int, tuple[PredictionRequest, m.ModelAnnouncement, Started]] = {}
        self._answered = 0
        self._own_topic = t.build(prefix, t.PredictTopic(client))
        self._topics = {t.build(prefix, t.PredictTopic()), self._own_topic}
        self._to_clear: set[str] = set()
        self._cleared = 0

    # --- models -------------------------------------------------------------------------------------------

    def model_announced(self, announced: m.ModelAnnouncement, now: float) -> None:
        """Makes this model the one to answer with.

        It is fetched at once if no model is here yet, and otherwise when a request comes.
        """
        self._model.announce(announced, now)

    def model_fetched(self, digest: str, model: FetchedModel | None, reason: str, now: float) -> None:
        """Takes the outcome of a fetch: answers with the new model from now on, or logs why there is none.

        The requests that waited for the fetch are answered.
        """
        if not self._model.fetched(digest, model, reason, now):
            return
        if model is not None and self._connection is None:
            self._connection = self._connect()
        self._answer_waiting()

    def due(self, now: float) -> float:
        """Returns when `advance` must be called next; ∞ for never.

        While a model is fetched, and while there are retained requests to clear, that is every second.
        """
        return now + ADVANCE_INTERVAL if self._to_clear else self._model.due(now)

    def advance(self, now: float) -> None:
        """Does what is due.

        Requests that have waited long enough for a newer model are answered, a first model that could not
        be fetched is tried again, and retained requests are cleared.
        """
        self._clear_retained()
        self._model.advance(now)
        if self._model.is_slow(now):
            self._answer_waiting()

    def _answer_waiting(self) -> None:
        while self._waiting and self._model.loaded is not None:
            self._predict(self._waiting.popleft(), *self._model.loaded)

    # --- requests -----------------------------------------------------------------------------------------

    def connected(self, *, shared_subscriptions: bool = True) -> None:
        """Subscribes to requests on a new connection, without ``shared_subscriptions`` to those by name only.

        A broker that has announced that it has none may end the connection that asks for one (MQTT 5, 3.2.2.3.13).
        """
        assert self._connection is not None
        topics = [(self._own_topic, 1)]
        if shared_subscriptions:
            topics.append((t.shared_predict_filter(self._prefix, self._group), 1))
        else:
            text = "answers only prediction requests on %s: the broker has no shared subscriptions"
            LOG.info(text, self._own_topic, extra={"client": self._client})
        self._connection.subscribe(topics, retain_as_published=True)

    def request_received(self, received: mqtt.Received, now: float) -> None:
        """Takes a request, which is answered at once or later, perhaps with an error.

        The answer to a retained request is an error: it may be very old, and the broker would keep it for ever, so
        `advance` clears its topic. Most requests above the rate limits get no answer.
        """
        if received.retain:
            if not received.payload:
                return  # a topic was cleared
            self._to_clear |= {received.topic} & self._topics
        if self._model.loaded is None:
            return
        topic, (loaded, model) = received.response_topic, self._model.loaded
        rejection = self._rate_limiter.refusal(topic, received.size, now)
        if rejection is not None and not self._rate_limiter.should_notify(rejection, now):
            return  # most refused requests get no answer, or the answers would be a flood, too
        is_allowed = topic is None or t.is_response_topic_allowed(self._prefix, topic)
        request = PredictionRequest(
            bytes(received.payload),
            topic if is_allowed else None,
            received.correlation_data,
            by_name=received.topic == self._own_topic,
        )
        if not is_allowed:
            own_topic = t.build(self._prefix, t.PredictionsTopic())
            text = f"response topic {topic!r}: expected one under {own_topic}/, or outside the prefix"
            self._answer(request, loaded, Answer(error=text))
        elif rejection is not None:
            self._answer(request, loaded, Answer(error=f"{rejection}; try again later"))
        elif received.retain:
            text = "the request is retained, expected one that is not: the broker would keep it"
            self._answer(request, loaded, Answer(error=text))
        elif len(request.payload) > MAX_REQUEST:
            text = f"the request has {len(request.payload)} bytes, expected at most {MAX_REQUEST}"
            self._answer(request, loaded, Answer(error=text))
        elif self._is_busy(request.response_topic):
            self._answer(request, loaded, Answer(error="busy; try again"))
        elif self._model.is_here(now) or self._model.is_slow(now):
            self._predict(request, loaded, model)
        else:
            self._waiting.append(request)
            self._model.want(now)

    def _clear_retained(self) -> None:
        """Clears the topics on which requests were retained: not for each request, since there may be a flood."""
        for topic in sorted(self._to_clear):
            self._cleared += 1
            if is_worth_logging(self._cleared - 1, self._cleared):
                text = "cleared retained requests on %s (%d so far)"
                LOG.info(text, topic, self._cleared, extra={"client": self._client})
            self._publish(topic, b"", retain=True)
        self._to_clear.clear()

    def prediction_done(self, job: int, answer: Answer, seconds: float, now: float) -> None:
        """Sends the answer that a job of `PredictionBackend` has found with ``seconds`` of processor time."""
        pending = self._running.pop(job, None)
        if pending is not None:
            request, announced, started = pending
            self._rate_limiter.charge_work(request.response_topic, seconds, now)
            self._answer(request, announced, answer, started)

    def close(self) -> Connection | None:
        """Drops all requests and releases the models.

        Returns the connection, which the caller must close, or ``None`` if there is none.
        """
        connection, self._connection = self._connection, None
        self._waiting.clear()
        self._running.clear()
        self._model.release()
        return connection

    def _is_busy(self, asker: str | None) -> bool:
        pending = [*self._waiting, *(request for request, _, _ in self._running.values())]
        own = sum(request.response_topic == asker for request in pending)
        return len(pending) >= MAX_PENDING_REQUESTS or own >= MAX_PENDING_PER_ASKER

    def _predict(
        self, request: PredictionRequest, announced: m.ModelAnnouncement, model: FetchedModel
    ) -> None:
        started = self._backend.predict(
            announced, model, request.payload, request.response_topic, by_name=request.by_name
        )
        self._running[started.job] = request, announced, started

    def _answer(
        self,
        request: PredictionRequest,
        announcement: m.ModelAnnouncement,
        answer: Answer,
        started: Started | None = None,
    ) -> None:
        own = started if answer.error is None else None
        error, output = answer.error, dict(answer.output or {})
        probabilities = output.pop("probabilities", None)
        label = output.pop("label", None) if probabilities else None
        message = m.Prediction(
            run=announcement.run,
            incarnation=announcement.incarnation,
            seq=next(self._seq),
            client=self._client,
            sha256=hashlib.sha256(request.payload).hexdigest(),
            version=announcement.version,
            first_version=announcement.first_version,
            personal=own is not None and own.personal,
            personal_part=own is not None and own.personal_part,
            label=label,
            probabilities=probabilities,
            output=output or None,
            error=None if error is None else error[:1000],
            example=answer.example,
        )
        self._answered += 1
        if is_worth_logging(self._answered - 1, self._answered):  # the first, and those at powers of ten
            LOG.info(
                "answered a prediction request (%d so far) with version %d: %s",
                self._answered,
                announcement.version,
                (label or f"{json.dumps(output):.100}") if error is None else f"error: {error}",
                extra={"client": self._client},
            )
        topic = request.response_topic or t.build(self._prefix, t.PredictionsTopic())
        self._publish(topic, codec.encode(message), request.correlation_data)

    def _publish(
        self, topic: str, payload: bytes, correlation_data: bytes | None = None, *, retain: bool = False
    ) -> None:
        if self._connection is None:
            return
        try:
            self._connection.publish(topic, payload, qos=1, retain=retain, correlation_data=correlation_data)
        except (QueueFull, MessageTooLarge, ValueError) as error:
            # MQTT may not allow the response topic: the asker's mistake, of which it cannot be told.
            LOG.warning(
                "prediction not sent, the asker will ask again: %s",
                error,
                extra={"client": self._client},
            )
