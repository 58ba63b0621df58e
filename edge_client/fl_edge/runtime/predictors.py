"""The predictors of a process's edges: where their predictions are made, and when the first of them is due."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

from fl_edge.messaging.model_store import FetchedModel, ModelStore
from fl_edge.prediction.predictor import Predictor, Started
from fl_edge.prediction.rate_limit import PredictionRateLimiter
from fl_edge.runtime.dispatcher import JobRunner
from fl_edge.runtime.edge import Edge
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import messages as m


class Predictors:
    """Gives edges their predictors, and calls these when they are due. Only the loop's thread may call it.

    ``enqueue`` takes the events of a client's connection for predictions. To ask all predictors after each event when
    they are due would cost more the more there are, so each is asked after it was used.
    """

    def __init__(
        self,
        prefix: str,
        store: ModelStore,
        jobs: JobRunner,
        enqueue: Callable[[str, mqtt.ConnectionEvent], None],
        group: str,
        now: float,
    ) -> None:
        self.due = math.inf
        """When `advance` must be called next, at the earliest."""
        self._edges: list[Edge] = []
        self._prefix = prefix
        self._store = store
        self._jobs = jobs
        self._enqueue = enqueue
        self._group = group
        self._rate_limiter = PredictionRateLimiter(now)
        self._first_seq = int(time.time() * 1000)

    def add(self, edge: Edge) -> None:
        """Lets an edge answer predictions."""
        self._edges.append(edge)
        edge.server = edge.predictor = Predictor(
            edge.client,
            self._prefix,
            self._store,
            _Backend(self._jobs, edge),
            lambda: edge.connect_predictor(partial(self._enqueue, edge.client)),
            self._first_seq,
            self._rate_limiter,
            self._group,
        )

    def used(self, edge: Edge, now: float) -> None:
        """Notes when an edge's predictor, if it has one, is due after it was used."""
        if edge.predictor is not None:
            self.due = min(self.due, edge.predictor.due(now))

    def advance(self, now: float) -> None:
        """Does what is due."""
        if now < self.due:
            return
        self.due = math.inf
        for edge in self._edges:
            if edge.predictor is not None:
                edge.predictor.advance(now)
                self.used(edge, now)


class _Backend:
    def __init__(self, jobs: JobRunner, edge: Edge) -> None:
        self._jobs, self._edge = jobs, edge

    def predict(
        self,
        announced: m.ModelAnnouncement,
        model: FetchedModel,
        payload: bytes,
        asker: str | None,
        *,
        by_name: bool,
    ) -> Started:
        edge, task = self._edge, announced.task
        own = edge.personal_model(announced.run, model) if by_name else None
        local = edge.local_part(announced.run) if own is None else own.local
        job = self._jobs.predict(
            edge.client,
            task,
            model if own is None else own.whole,
            payload,
            asker,
            edge.partition_of(task),
            local,
        )
        part = own is None and local is not None
        return Started(job, personal=own is not None or part, personal_part=part)
