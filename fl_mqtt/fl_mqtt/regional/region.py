"""Does the jobs of the edge above in the region: loading is to wait for its edges, training is a round of them.

A sum that was sent twice is one update, since its digest is the same. `Versions` finds out what becomes of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_aggregator.aggregation.averaging import SummedRound
from fl_aggregator.round import events as on
from fl_aggregator.round.effects import Effect
from fl_aggregator.round.state import Run
from fl_edge.messaging.model_store import FetchedModel
from fl_edge.runtime.dispatcher import PredictionResult
from fl_edge.runtime.items import JobEnded
from fl_edge.session import effects, events
from fl_edge.session.evaluation import NO_SCORES
from fl_edge.session.work import EvaluationScores
from fl_edge.workers import jobs
from fl_edge.workers.protocol import CacheModel
from fl_mqtt.regional.below import Below, RegionOptions, settings_of
from fl_mqtt.regional.update import update_of
from fl_mqtt.regional.versions import Versions
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed
from fl_shared.protocol import messages as m
from fl_shared.protocol.abilities import BF16, CLIP_GRADIENTS, LOGIT_ADJUSTMENT

LOG: Final = logging.getLogger(__name__)

ABILITIES: Final = ("prox", CLIP_GRADIENTS, LOGIT_ADJUSTMENT, BF16)
"""What a region's edges can do, and a sum of their updates allows (protocol, 4.11). One that cannot fails its round."""
SHARE_OF_DEADLINE: Final = 0.8
"""The part of the time that a round above has left in which the region collects; the rest is for the sum's way."""


@dataclass(frozen=True, slots=True)
class _Training:
    job: int
    selected: m.Selected
    began: float


class Region:
    """The region of one edge of the run above. ``put`` hands the end of a job to that edge's loop.

    Three threads use it: the edge's loop, the loop of the region's aggregator, and its arithmetic.
    """

    def __init__(
        self, options: RegionOptions, directory: Path, broker: BrokerAccess, put: Callable[[JobEnded], None]
    ) -> None:
        self._options = options
        self._directory = directory
        self._broker = broker
        self._put = put
        self._lock = threading.RLock()
        self._admitted: m.Admitted | None = None
        self._run: str | None = None
        self._below: Below | None = None
        self._state: Run | None = None
        """The region's state after its last event; null until its aggregator runs."""
        self._loading: int | None = None
        self._training: _Training | None = None
        self._total: SummedRound | None = None
        """The newest sum, for a run above that asks for it again."""
        self._evaluating: tuple[int, str] | None = None
        self._versions = Versions(options.name)

    def check(self) -> None:
        """Raises what has ended the region's aggregator."""
        if self._below is not None:
            self._below.check()

    def close(self) -> None:
        """Stops the region's aggregator, so that it can be resumed."""
        if self._below is not None:
            self._below.stop("the regional aggregator was stopped")

    # --- what the edge above hears ------------------------------------------------------------------------

    def hear(self, event: events.Event) -> None:
        """Notes what the run above says, before the edge's session does."""
        with self._lock:
            match event:
                case events.Replied(reply=m.Admitted() as reply) if reply.sums is not None:
                    self._admitted = reply
                case events.ModelAnnounced(announced=announced):
                    self._versions.announced(announced)
                case events.ResultSeen(result=result):
                    self._versions.heard(result)
                    self._settle()
                    self._end_uncounted(result)
                case _:
                    pass

    def _end_uncounted(self, result: m.Result) -> None:
        end = self._versions.end_of(result)
        if self._below is not None and result.run == self._run and end is not None:
            self._below.take(end)

    def version_received(self, reference: m.ModelReference, fetched: FetchedModel) -> None:
        """Takes a version of the run above."""
        with self._lock:
            self._versions.hold(reference, fetched)
            self._settle()

    def _settle(self, *, force: bool = False) -> None:
        """Gives the region the version that is next, if there is one; ``force``: it is to begin a round with it."""
        if self._below is not None and self._state is not None:
            version = self._versions.next(self._run, self._state, force=force)
            if version is not None:
                self._below.take_version(version)

    # --- the jobs of the edge above -----------------------------------------------------------------------

    def load(self, client: str, effect: effects.Load) -> None:
        """Starts the region's aggregator; the job ends when enough of its edges have loaded their data."""
        del client
        with self._lock:
            admitted = self._admitted
            if admitted is None or admitted.sums is None:
                raise RunFailed("the run above does not say how regional aggregators add up")
            if self._run != admitted.run:
                self._begin(admitted, admitted.sums, effect)
            self._loading = effect.job
            self._end_loading()

    def _begin(self, admitted: m.Admitted, sums: m.RegionalSums, effect: effects.Load) -> None:
        self.close()
        prefix = self._broker.prefix
        settings = settings_of(self._options, effect.task, effect.partition, sums, prefix)
        self._run, self._total = admitted.run, None
        self._versions.forget_held()
        self._below = Below(self._directory / admitted.run, settings, self._broker, self, self.observe)
        self._state = None  # until it runs, it would lose the versions that it takes
        for result in self._versions.results:
            self._end_uncounted(result)
        LOG.info("the region of run %s: %d edges, prefix %s", admitted.run, self._options.edges, prefix)

    def _end_loading(self) -> None:
        state = self._state
        if self._loading is None or state is None or not state.begun or state.manifest is None:
            return
        ready = [one for one in state.roster.clients.values() if one.ready(state.manifest)]
        loaded = (
            sum(one.examples or 0 for one in ready),
            int(state.settings.holdout > 0),
            state.manifest,
            state.declared or (),
        )
        job, self._loading = self._loading, None
        self._end(lambda now: events.PartitionLoaded(now, job, *loaded, ABILITIES))

    def _end(self, event: Callable[[float], events.Event]) -> None:
        self._put(JobEnded(self._options.name, event))

    def train(
        self,
        client: str,
        effect: effects.Train,
        base: FetchedModel | None,
        companions: Sequence[FetchedModel] = (),
        own: Mapping[str, memoryview] | None = None,
        masking: jobs.Masking | None = None,
    ) -> None:
        """Orders a round of the region; the job ends with its sum."""
        del client, companions, own, masking  # no run with regional aggregators is masked
        with self._lock:
            selected = effect.selected
            assert self._below is not None, "its data are loaded"
            self._training = _Training(effect.job, selected, time.monotonic())
            if base is not None:
                assert selected.base is not None
                if self._state is None or selected.base != self._state.model:
                    self._versions.hold(selected.base, base)
                self._settle(force=True)
            if self._total is not None and _is_of(self._total, selected):
                self._report(self._total)
                return
            self._below.take(
                on.RoundOrdered(
                    now=0.0,
                    round=selected.round,
                    base=selected.base,
                    seconds=selected.seconds_left * SHARE_OF_DEADLINE,
                    training=selected.training,
                    correction=selected.correction,
                )
            )

    def cancel(self, client: str, job: int) -> None:
        """Ends the region's round, or forgets the job."""
        del client
        with self._lock:
            if self._loading == job:
                self._loading = None
            if self._evaluating is not None and self._evaluating[0] == job:
                self._evaluating = None
            if self._training is not None and self._training.job == job:
                number, self._training = self._training.selected.round, None
                if self._below is not None:
                    reason = f"the run above no longer waits for round {number}"
                    self._below.take(on.OrderEnded(now=0.0, round=number, reason=reason))

    def evaluate(
        self,
        client: str,
        effect: effects.Evaluate,
        model: FetchedModel,
        local: CacheModel | None = None,
    ) -> None:
        """The job ends when the region's edges have evaluated the version, which they do without being asked."""
        del client, local
        with self._lock:
            self._evaluating = effect.job, effect.digest
            version = self._versions.number_of(effect.digest)
            if version is not None and self._state is not None and version > self._state.version:
                self._versions.hold(m.ModelReference(version=version, digest=effect.digest), model)
                self._settle()
            self._end_evaluation()

    def _end_evaluation(self) -> None:
        state = self._state
        if self._evaluating is None or state is None or state.model is None:
            return
        job, digest = self._evaluating
        number = self._versions.number_of(digest)
        version = state.version if number is None else number
        if version > state.version or any(one.model.version == version for one in state.evaluations):
            return
        self._evaluating = None
        scores, found = NO_SCORES, dict(state.metrics)
        if found.pop("version", None) == version:
            examples, loss = int(found.pop("evaluated_examples")), found.pop(m.LOSS.name)
            names = {one.name for one in state.declared or ()}
            measured = {name: value for name, value in found.items() if name in names}
            scores = EvaluationScores(examples, loss, measured, declared=state.declared or ())
        self._end(lambda now: events.ModelEvaluated(now, job, scores))

    def personalize(
        self, client: str, effect: effects.Personalize, model: FetchedModel, own: Mapping[str, memoryview]
    ) -> None:
        """A run with models of the edges' own refuses regional aggregators."""
        del client, effect, model, own
        raise AssertionError("a region has no model of its own")

    def predict(
        self,
        client: str,
        task: str,
        model: FetchedModel | CacheModel,
        payload: bytes,
        asker: str | None,
        partition: m.Partition | None,
        local: CacheModel | None = None,
    ) -> int:
        """The region's edges answer predictions, on their own broker."""
        del client, task, model, payload, asker, partition, local
        raise AssertionError("a regional aggregator answers no predictions")

    def job_done(
        self, result: jobs.JobResult, now: float
    ) -> tuple[str, events.Event | PredictionResult] | None:
        """There is no pool whose jobs could end."""
        del result, now
        raise AssertionError("a regional aggregator has no pool of workers")

    # --- what the region's aggregator says ----------------------------------------------------------------

    def observe(self, state: Run, effects_of_step: tuple[Effect, ...], now: float) -> float | None:
        """Takes the region's state after each event, on the thread of its loop."""
        del effects_of_step, now
        with self._lock:
            self._state = state
            self._end_loading()
            self._settle()
            self._end_evaluation()
        return None

    def summed(self, total: SummedRound) -> None:
        """Takes the sum of a round, and reports it if the run above waits for it."""
        with self._lock:
            self._total = total
            if self._training is not None and _is_of(total, self._training.selected):
                self._report(total)

    def declined(self, number: int, detail: str) -> None:
        """Reports that there is no sum of a round."""
        with self._lock:
            training = self._training
            if training is None or training.selected.round != number:
                return
            self._training = None
            self._end(lambda now: events.JobFailed(now, training.job, detail))

    def _report(self, total: SummedRound) -> None:
        training, self._training = self._training, None
        assert training is not None
        update = update_of(total, time.monotonic() - training.began)
        self._end(lambda now: events.Trained(now, training.job, update))


def _is_of(total: SummedRound, selected: m.Selected) -> bool:
    return (total.effect.round, total.effect.base) == (selected.round, selected.base)
