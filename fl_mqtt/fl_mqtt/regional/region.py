"""Does the jobs of the edge above in the region: loading is to wait for its edges, training is a round of them.

The run above decides what becomes of a sum. Its result says whether the sum is in a version, and the version follows
as a model: then the region's round is committed with it. A sum that is not in it counts for nothing, so
the region's round is abandoned. What was sent twice is one update, since its digest is the same.
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
from fl_aggregator.round.state import Run, collected_round
from fl_aggregator.storage.checkpoint import Model
from fl_edge.messaging.model_store import FetchedModel
from fl_edge.runtime.dispatcher import PredictionResult
from fl_edge.runtime.loop import JobEnded
from fl_edge.session import effects, events
from fl_edge.session.evaluation import NO_SCORES
from fl_edge.session.work import EvaluationScores
from fl_edge.workers import jobs
from fl_edge.workers.protocol import CacheModel
from fl_mqtt.regional.below import Below, RegionOptions, settings_of
from fl_mqtt.regional.update import update_of
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import RunFailed
from fl_shared.protocol import messages as m
from fl_shared.tensors.encodings.float32 import FLOAT32

LOG: Final = logging.getLogger(__name__)

MOST_RESULTS: Final = 16
"""Results and announcements that are remembered."""
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
        """The region's state after its last event."""
        self._loading: int | None = None
        self._training: _Training | None = None
        self._total: SummedRound | None = None
        """The newest sum, for a run above that asks for it again."""
        self._evaluating: tuple[int, str] | None = None
        self._versions: dict[str, int] = {}
        """By digest, as announced."""
        self._results: dict[tuple[str, int], m.Result] = {}
        """The newest of the run above, which may be heard before it admits the edge."""
        self._held: tuple[m.ModelReference, Model] | None = None
        """A version of which it is not known yet whether the region's sum is in it."""

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
                    self._versions[announced.digest] = announced.version
                    while len(self._versions) > MOST_RESULTS:
                        self._versions.pop(next(iter(self._versions)))
                case events.ResultSeen(result=result):
                    self._results.pop((result.run, result.round), None)
                    self._results[result.run, result.round] = result
                    while len(self._results) > MOST_RESULTS:
                        self._results.pop(next(iter(self._results)))
                    self._settle()
                    self._end_uncounted(result)
                case _:
                    pass

    def _end_uncounted(self, result: m.Result) -> None:
        if self._below is not None and result.run == self._run and not self._is_counted(result):
            why = result.missing.get(self._options.name, result.reason or "it was made without this region")
            detail = f"round {result.round} of the run above was {result.outcome}: {why}"
            self._below.take(on.OrderEnded(now=0.0, round=result.round, reason=detail))

    def _is_counted(self, result: m.Result) -> bool:
        return result.outcome == "committed" and self._options.name in result.participants

    def version_received(self, reference: m.ModelReference, fetched: FetchedModel) -> None:
        """Takes a version of the run above."""
        with self._lock:
            self._hold(reference, fetched)
            self._settle()

    def _hold(self, reference: m.ModelReference, fetched: FetchedModel) -> None:
        section = fetched.weights
        if section.encoding != FLOAT32.name:
            raise RunFailed(
                f"the run above publishes models in {section.encoding!r}, expected {FLOAT32.name!r}"
            )
        if self._held is None or self._held[0].version < reference.version:
            weights = FLOAT32.decode(section.data).copy()  # the store gives the memory up
            self._held = reference, Model(section.manifest, weights, reference.digest)

    def _settle(self, *, force: bool = False) -> None:
        """Gives the region the version that is held, once it is known whether the region's sum is in it.

        ``force``: it is to begin a round with it.
        """
        if self._held is None or self._below is None or self._state is None:
            return
        reference, model = self._held
        collected = collected_round(self._state.phase)
        event: on.Event = on.VersionReceived(now=0.0, model=reference, manifest=model.manifest.digest)
        if collected is not None and collected.version == reference.version:
            result = self._results.get((self._run or "", collected.round))
            if result is None and not force:
                return
            if result is not None and self._is_counted(result):
                event = on.ModelCreated(
                    now=0.0, round=collected.round, digest=reference.digest, manifest=model.manifest.digest
                )
        self._held = None
        self._below.take_version(reference.version, model, event)

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
        self._run, self._total, self._held = admitted.run, None, None
        self._below = Below(self._directory / admitted.run, settings, self._broker, self, self.observe)
        self._state = self._below.first_state
        for result in tuple(self._results.values()):
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
        abilities = ("prox", "clip-gradients", "logit-adjustment")
        job, self._loading = self._loading, None
        self._end(lambda now: events.PartitionLoaded(now, job, *loaded, abilities))

    def _end(self, event: Callable[[float], events.Event]) -> None:
        self._put(JobEnded(self._options.name, event))

    def train(
        self,
        client: str,
        effect: effects.Train,
        base: FetchedModel | None,
        companions: Sequence[FetchedModel] = (),
        own: Mapping[str, memoryview] | None = None,
    ) -> None:
        """Orders a round of the region; the job ends with its sum."""
        del client, companions, own
        with self._lock:
            selected = effect.selected
            assert self._below is not None, "its data are loaded"
            self._training = _Training(effect.job, selected, time.monotonic())
            if base is not None:
                assert selected.base is not None
                if self._state is None or selected.base != self._state.model:
                    self._hold(selected.base, base)
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
            version = self._versions.get(effect.digest)
            if version is not None and self._state is not None and version > self._state.version:
                self._hold(m.ModelReference(version=version, digest=effect.digest), model)
                self._settle()
            self._end_evaluation()

    def _end_evaluation(self) -> None:
        state = self._state
        if self._evaluating is None or state is None or state.model is None:
            return
        job, digest = self._evaluating
        version = self._versions.get(digest, state.version)
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
