"""A federation whose updates are masked: a real aggregator, without a broker, and edges that only do sums.

The aggregator can be killed before any of its effects, and is resumed from its directory. Each message is encoded and
decoded on its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.rate_limiter import RateLimiter
from fl_aggregator.messaging.reader import MessageReader
from fl_aggregator.messaging.rejections import Rejections
from fl_aggregator.monitoring.tracking.trackers import Trackers
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.server import launch as launches
from fl_aggregator.server.disk_pause import DiskPause
from fl_aggregator.server.pauses import Pauses
from fl_aggregator.server.runner import Runner
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.tensors.manifest import Manifest
from tests.support.simulated_masked_edge import MANIFEST, MAX_DELTA, MaskedEdge


class Killed(Exception):
    """The aggregator has ended without warning."""


class MaskedFederation:
    """An aggregator with its edges, whose names are ``0`` … . ``settings``: those of the run.

    ``before_start`` is called before each start of the aggregator, ``before_effect`` before each of its effects.
    """

    def __init__(
        self,
        directory: Path,
        *,
        masked: bool = True,
        clients: int = 5,
        manifest: Manifest = MANIFEST,
        **settings: Any,
    ) -> None:
        self.directory = directory
        usual: dict[str, Any] = {
            "clients": clients,
            "per_round": clients,
            "rounds": 3,
            "max_delta": MAX_DELTA,
            "max_examples": 100,
            "max_buffer": MAX_DELTA,
            "durability": "process",
            "grace": 1.0,
            **settings,
            "masked": masked,
        }
        self.settings = Settings.model_validate(usual)
        self.edges = {str(n): MaskedEdge(str(n), masked=masked, manifest=manifest) for n in range(clients)}
        self.now = 0.0
        self.lives = 0
        self.kill_at: int | None = None
        self.kills = 0
        self.before_start: Callable[[], None] = lambda: None
        self.before_effect: Callable[[do.Effect], None] = lambda _: None
        self.effects: list[do.Effect] = []
        self.published: list[tuple[t.Topic, m.Message]] = []
        self.retained: dict[t.Topic, m.Message] = {}
        self.maximum_packet_size = 2**28
        self.bytes_up = self.bytes_down = 0
        self._to_edges: deque[tuple[t.Topic, m.Message]] = deque()
        self._jobs: deque[JobDone] = deque()

    # --- the outlet -----------------------------------------------------------------------------------------

    def send(self, topic: t.Topic, message: m.Message, correlation: bytes | None = None) -> None:
        assert correlation is None, "nobody asks anything"
        heard = codec.decode(topic, codec.encode(message))
        self.published.append((topic, heard))
        self._to_edges.append((topic, heard))

    def retain(self, topic: t.Topic, message: m.Message, *, counted: bool = True) -> None:
        del counted
        self.retained[topic] = message
        self.send(topic, message)

    def retain_large(self, topic: t.Topic, make: Callable[[], m.Message]) -> None:
        self.retain(topic, make())

    def clear(self, topic: t.Topic) -> None:
        self.retained.pop(topic, None)

    # --- the aggregator -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the aggregator, or resumes the run in its directory; all edges register."""
        self.before_start()
        self.lives += 1
        self._to_edges.clear()
        self._jobs.clear()
        self.retained.clear()
        if (self.directory / "run.json").exists():
            launch = launches.resume(self.directory, simulated=False)
        else:
            launch = launches.new(self.settings, self.directory)
            launch.directory.write_run(launch.record)
        self._launch = launch
        record = launch.record
        launch.directory.write_run(record)
        self.scope = EnvelopeSource(run=record.run, incarnation=record.incarnation)
        rejections = Rejections()
        self.rejections = rejections
        self.reader = MessageReader(rejections, self.scope)
        limiter = RateLimiter("fl", 100, 100, lambda: self.runner.state.roster)
        pauses = Pauses(lambda: self.now)
        self.runner = Runner(
            launch, self.scope, self, self._jobs.append, self.reader, rejections, limiter,
            pauses, DiskPause(pauses, lambda _: None, lambda _name, _item: None, lambda: None), Trackers(),
            clock=lambda: self.now, executor=_Inline(),
        )  # fmt: skip
        perform = self.runner.interpreter.perform

        def counted(effect: do.Effect, state: Any) -> None:
            self.before_effect(effect)
            if self.kill_at is not None and len(self.effects) == self.kill_at:
                self.kill_at = None
                raise Killed
            self.effects.append(effect)
            perform(effect, state)

        self.runner.interpreter.perform = counted  # type: ignore[method-assign]
        self.runner.begin(launch.recovered)
        for edge in self.edges.values():
            edge.starts += self.lives > 1
            self.say(t.RegisterTopic(edge.name), edge.registration())

    def end(self) -> None:
        """Lets go of the directory, as the end of the process does."""
        self.runner.worker.close()
        self._launch.close()

    def say(self, topic: t.Topic, message: m.Message) -> None:
        """The aggregator hears a message of an edge."""
        payload = codec.encode(message)
        inbound = self.reader.read(topic, codec.decode(topic, payload), len(payload), self.state, self.now)
        if inbound.reply is not None:
            self.runner.interpreter.perform(inbound.reply, self.state)
        if inbound.event is not None:
            self.runner.handle(inbound.event)
        if isinstance(message, m.Agreed | m.Opened):  # what watchers see of this phase
            self.publish_status()
        self._work()

    def publish_status(self, *, force: bool = True) -> None:
        publisher = self.runner.interpreter.status_publisher
        publisher.publish_status(self.state, self.now, None, self.rejections, force=force)

    def _work(self) -> None:
        while self._jobs:
            self.runner.job_done(self._jobs.popleft())
        self.runner.handle_waiting()
        if self._jobs:
            self._work()

    @property
    def state(self) -> Any:
        return self.runner.state

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.runner.handle(on.TimePassed(now=self.now))
        self.runner.interpreter.do_what_is_due(self.state)
        self._work()

    def deliver(self) -> None:
        """Delivers all messages, until nobody has anything to say."""
        while self._to_edges:
            topic, message = self._to_edges.popleft()
            for edge in self.edges.values():
                scope = {"run": self.scope.run, "incarnation": self.scope.incarnation, "seq": 1}
                for answer in edge.hear(topic, message, scope):
                    answer = edge.tamper(answer)
                    edge.answers.append(answer)
                    where = t.RegisterTopic if isinstance(answer, m.Registration) else t.UpdatesTopic
                    self.say(where(edge.name), answer)

    def run(self, *, patience: int = 60) -> Any:
        """Runs to the end, resumed after each kill; returns the last state."""
        restart = True
        for _ in range(patience):
            try:
                if restart:
                    self.start()
                    restart = False
                self.deliver()
                if self.state.ended:
                    self.end()
                    return self.state
                self.pass_time(11.0)
            except Killed:
                self.kills += 1
                self.end()
                restart = True
        raise AssertionError(f"not within {patience} steps: {self.state.phase}")


class _Inline(Executor):
    """Does each job at once."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future


def digests_of(state: Any, federation: MaskedFederation) -> list[str | None]:
    """The digests of all versions that were published, in their order."""
    found = {e.model.version: e.model.digest for e in federation.effects if isinstance(e, do.PublishModel)}
    assert found[state.version] == state.model.digest
    return [found.get(version) for version in range(state.version + 1)]
