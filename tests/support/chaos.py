"""Deterministic chaos: a run in virtual time whose network and programs fail as a seed says, and what must hold.

    python -m tests.support.chaos SEED

shows what happens with one seed. Messages are lost, doubled and reordered, links are cut, edges and the aggregator die
and are started again. At last nothing fails any more, and the run must finish. An odd seed is an asynchronous run.

It holds these promises of docs/reliability.md: 1.1 to 1.5, 1.8, 2.2, 2.6, 3.2, 3.6, 4.2 and 4.6.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.machine import step
from fl_aggregator.round.phases import Failed, Finished
from fl_aggregator.round.state import Run, Summary
from fl_aggregator.server.compaction import JournalCompactor
from fl_aggregator.storage.run_directory import HISTORY_FILE
from fl_edge.session.state import Stopped
from fl_mqtt.simulation.virtual.aggregator import Aggregator
from fl_mqtt.simulation.virtual.devices import Device
from fl_mqtt.simulation.virtual.network import Link
from fl_shared.tensors.manifest import Vector
from fl_shared.tensors.sections import WEIGHTS, ModelSection, model_digest
from tests.support.chaos_settings import ROUNDS, settings_of
from tests.support.expected_models import ExpectedModels
from tests.support.round_invariants import RoundInvariants
from tests.support.turbulence import Turbulence
from tests.support.virtual_federation import EXAMPLES, MANIFEST, Federation

CALM_VERSIONS: Final = 3
"""Versions that are made when nothing fails any more."""
CALM_AFTER: Final = 900.0
"""Virtual seconds after which nothing fails any more, however few versions there are."""
PATIENCE: Final = 20_000.0
"""Virtual seconds within which the run must finish."""
FAULT_INTERVAL: Final = 8.0
"""Virtual seconds between two faults, on average."""
KEEPALIVE: Final = 15.0
"""Virtual seconds after which a connection over a link that was cut is lost."""

COMPACTED: Final = 2**12
"""Bytes from which a journal is compacted with three of four seeds, so that resumes begin with a snapshot."""

Show = Callable[[str], None]


class _Died(BaseException):
    """The aggregator dies: nothing of it runs any more."""


def _mortal(function: Callable[..., None]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        with suppress(_Died):
            function(*arguments)

    return call


class Chaos:
    """One run in ``directory``. ``show`` is told what happens. Each violation is an ``AssertionError``."""

    def __init__(self, directory: Path, seed: int, show: Show = lambda _line: None) -> None:
        self.rng = random.Random(seed)
        self.settings = settings_of(self.rng, seed)
        self.turbulence = Turbulence(self.rng)
        self._show = show
        self._compacts = seed // 2 % 4 > 0
        self._invariants: RoundInvariants | None = None
        self._first: Run | None = None
        self._effects_left: int | None = None
        """Effects until the aggregator dies; null: it does not."""
        self._absence = 0.0
        self._has_died = False
        self._results: dict[int, Summary] = {}
        self._expected = ExpectedModels(self.settings, self._delta)
        self._counted: Counter[tuple[str, int, str]] = Counter()
        """The updates in versions, by client, round and digest."""
        self._versions: dict[str, int] = {}
        self._given_up: set[tuple[str, int, str]] = set()
        """Accepted updates of an asynchronous run that an abandoned round or the end has left without a version."""
        self._aggregator_is_there = True
        self._disturbed: set[str] = set()
        self._slowness = self.rng.choice((0.0, 0.5, 8.0))
        """Virtual seconds of a job of the aggregator's worker, on average."""
        self.federation = Federation(
            directory, self.settings, self._device, self.turbulence, self._watch, self._job_seconds
        )
        self.world = self.federation.world
        self._plan_fault()

    def _job_seconds(self, job: JobDone) -> float:
        """Mostly averages take time, so that a buffer fills, and programs die meanwhile; in rounds, only they do."""
        share = 1.0 if isinstance(job.event, on.ModelCreated) else 0.05 * (self.settings.mode == "async")
        return share * self._slowness * self.rng.expovariate(1.0)

    def _device(self, _client: str) -> Device:
        link = Link(self.rng.choice((0.01, 0.2)), 1e6, 1e6)
        return Device(EXAMPLES * 10 / self.rng.choice((0.5, 2.0, 8.0)), link)

    # --- the run --------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Returns the digest of the last model, when all that must hold has held."""
        while True:
            state = self.federation.aggregator.state
            if self._aggregator_is_there and isinstance(state.phase, Finished):
                break
            if self._aggregator_is_there and isinstance(state.phase, Failed):
                self._say(f"the run fails: {state.phase.reason}")
                self.federation.kill_aggregator()
                self._resume_aggregator()
            assert self.world.now < PATIENCE, f"the run does not end: {state.phase}"
            assert self.world.step(), f"nothing will happen any more: {state.phase}"
            self._bury()
        self.federation.close()
        self._check_end(state)
        assert state.model is not None
        return state.model.digest

    def _say(self, text: str) -> None:
        self._show(f"{self.world.now:9.3f}  {text}")

    # --- faults ---------------------------------------------------------------------------------------------

    def _plan_fault(self) -> None:
        self.world.after(self.rng.expovariate(1 / FAULT_INTERVAL), self._fault)

    def _fault(self) -> None:
        version = self.federation.aggregator.state.version
        if version > ROUNDS - CALM_VERSIONS or self.world.now > CALM_AFTER:
            self._say("from now on nothing fails")
            self.turbulence.active = False
            return
        self._plan_fault()
        kinds = (self._kill_edge, self._kill_edge, self._blink, self._cut)
        kind = self.rng.choice((*kinds, self._kill_aggregator, self._kill_at_an_effect))
        kind(self.rng.choice(sorted(self.federation.edges)), self.rng.choice((0.5, 3.0, 12.0, 40.0)))

    def _kill_edge(self, client: str, seconds: float) -> None:
        if self._begin(client, f"edge {client} is killed, for {seconds:g} s"):
            self.federation.edges[client].kill()
            self.world.after(seconds, lambda: self._connect(client))

    def _blink(self, client: str, seconds: float) -> None:
        if self._begin(client, f"edge {client} loses its connection, for {seconds:g} s"):
            self.federation.edges[client].disconnect()
            self.world.after(seconds, lambda: self._connect(client))

    def _cut(self, client: str, seconds: float) -> None:
        """Nothing arrives; the broker and the edge notice that only after a keepalive."""
        if self._begin(client, f"the link of edge {client} is cut, for {seconds:g} s"):
            self.turbulence.cut.add(client)
            if seconds > KEEPALIVE:
                self.world.after(KEEPALIVE, self.federation.edges[client].disconnect)
            self.world.after(seconds, lambda: self._connect(client))

    def _begin(self, client: str, text: str) -> bool:
        if client in self._disturbed:
            return False
        self._disturbed.add(client)
        self._say(text)
        return True

    def _connect(self, client: str) -> None:
        self._disturbed.discard(client)
        self.turbulence.cut.discard(client)
        if not self.federation.network.is_connected(client):
            self._say(f"edge {client} connects")
            self.federation.edges[client].connect()

    def _kill_aggregator(self, _client: str, seconds: float) -> None:
        if self._aggregator_is_there and not self.federation.aggregator.state.ended:
            self._say(f"the aggregator is killed, for {seconds:g} s")
            self._aggregator_is_there = False
            self.federation.kill_aggregator()
            self.world.after(seconds, self._resume_aggregator)

    def _kill_at_an_effect(self, _client: str, seconds: float) -> None:
        """Lets the aggregator die in the midst of a step, perhaps in one of its next incarnations, as it resumes."""
        if self._effects_left is None:
            self._effects_left, self._absence = self.rng.randrange(12), seconds

    def _bury(self) -> None:
        """Lets the world see that the aggregator has died in the midst of a step."""
        if self._has_died:
            self._has_died, self._aggregator_is_there = False, False
            self.federation.kill_aggregator()
            self.world.after(self._absence, self._resume_aggregator)

    def _resume_aggregator(self) -> None:
        self._say("the aggregator resumes the run")
        self._aggregator_is_there = True
        _mortal(self.federation.resume_aggregator)()
        self._bury()

    # --- what must hold -------------------------------------------------------------------------------------

    def _watch(self, aggregator: Aggregator) -> None:
        """Checks every step of an incarnation."""
        runner: Any = aggregator.runner
        if self._compacts:
            launch = aggregator._launch
            runner.interpreter.compactor = JournalCompactor(launch.directory, launch.snapshot, COMPACTED, 1)
        if self._invariants is None:
            self._first = runner.state
            self._invariants = RoundInvariants(runner.state)
        handle, perform, invariants = runner.handle, runner.interpreter.perform, self._invariants
        recorded = False

        def checked(event: on.Event) -> None:
            nonlocal recorded
            before, recorded = runner.state, False
            after, effects = step(before, event)
            try:
                handle(event)
            finally:
                if recorded or not self._has_died:
                    assert runner.state == after, "the same input, another output"
                    invariants.check_step(before, event, after, effects)
                    for effect in effects:
                        self._see(effect, after)

        def performed(effect: do.Effect, state: Run) -> None:
            nonlocal recorded
            if self._effects_left == 0:
                self._say(f"the aggregator dies before {_text(effect)}, for {self._absence:g} s")
                self._effects_left, self._has_died = None, True
                raise _Died
            if self._effects_left is not None:
                self._effects_left -= 1
            perform(effect, state)
            recorded = recorded or isinstance(effect, do.Record)

        runner.handle, runner.interpreter.perform = checked, performed
        for entry in ("_receive", "_job_done", "_time_passed"):
            setattr(aggregator, entry, _mortal(getattr(aggregator, entry)))

    def _see(self, effect: do.Effect, after: Run) -> None:
        match effect:
            case do.Record():
                return
            case do.Average(contributors=contributors):
                self._expected.add(effect)
                self._counted.update(map(_key, contributors))
                for update in contributors:
                    stale = 0 if update.base is None else effect.version - 1 - self._versions[update.base]
                    assert update.staleness == stale <= (self.settings.max_staleness or 0)
            case do.PublishModel(model=model):
                self._versions[model.digest] = model.version
                section = ModelSection(WEIGHTS, MANIFEST, memoryview(self._expected.models[-1].tobytes()))
                assert model.digest == model_digest([section]), "the model is not that of its updates"
            case do.PublishResult(summary=summary):
                assert summary.outcome == "committed" or summary.reason, "abandoned without a reason"
                self._results[summary.round] = summary
            case do.CloseBuffer(round=number, updates=updates):
                left = {_key(update) for update in updates} - self._counted.keys()
                is_abandoned = number in self._results and self._results[number].outcome == "abandoned"
                assert not left or is_abandoned or after.is_done, f"round {number} has lost {left}"
                self._given_up |= left
            case _:
                pass
        self._say(f"        {_text(effect)}")

    def _delta(self, update: on.UpdateMetadata) -> Vector:
        made = self.federation.jobs.made[update.client, update.digest]
        return np.frombuffer(bytes(made.sections[0].data), "<f4")

    def _check_end(self, state: Run) -> None:
        invariants = self._invariants
        assert invariants is not None
        assert state.version == ROUNDS
        replayed = self._first
        for event in invariants.journal:
            assert replayed is not None
            replayed, _ = step(replayed, event)
        assert replayed == state, "what was recorded does not give the state back"
        twice = [one for one, times in self._counted.items() if times > 1]
        assert not twice, f"in two versions: {twice}"
        for client, number, digest in invariants.accepted:
            if self.settings.mode == "async" and number > 0:
                known = self._counted.keys() | self._given_up
                assert (client, number, digest) in known, f"the update {number} of {client} is lost"
                continue
            summary = self._results.get(number)
            if summary is not None and summary.outcome == "committed":
                assert client in summary.participants, f"round {number} has lost the update of {client}"
        trained = Counter(one for one in self.federation.jobs.trained if one[1] > 0)
        again = [one for one, times in trained.items() if times > 1]
        assert not again, f"trained again: {again}"
        lines = [
            json.loads(line)["round"]
            for line in (self.federation.directory / HISTORY_FILE).read_text().splitlines()
        ]
        assert lines == list(range(1, len(lines) + 1)), f"the history has the rounds {lines}"
        stopped = [
            client for client, edge in self.federation.edges.items() if isinstance(edge.state, Stopped)
        ]
        assert not stopped, f"edges have ended: {stopped}"


def _key(update: on.UpdateMetadata) -> tuple[str, int, str]:
    return update.client, update.round, update.digest


def _text(effect: do.Effect) -> str:
    match effect:
        case do.SendReply(client=client, body=body):
            return f"{type(body).__name__} {client} {getattr(body, 'reason', '')}"
        case do.AnnounceRound(round=number, cohort=cohort):
            return f"round {number} is open: {', '.join(cohort)}"
        case do.Average(round=number, contributors=contributors):
            return f"round {number} is averaged: {', '.join(one.client for one in contributors)}"
        case do.PublishResult(summary=summary):
            return f"round {summary.round} is {summary.outcome}: {summary.reason or summary.missing}"
        case do.Receive(update=update) | do.StoreUpdate(update=update) | do.Fold(update=update):
            return f"{type(effect).__name__} {update.client} of round {update.round}"
        case _:
            return type(effect).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def run_seed(seed: int, show: Show = lambda _line: None) -> str:
    """Returns the digest of the last model. Raises ``AssertionError`` with the command that shows it again."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch, _quiet():
        try:
            return Chaos(Path(scratch) / "run", seed, show).run()
        except Exception as error:
            raise AssertionError(f"{error}; to see it again: python -m tests.support.chaos {seed}") from error


if __name__ == "__main__":
    click.echo(run_seed(int(sys.argv[1]), click.echo))
