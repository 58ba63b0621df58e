"""A federation whose updates are masked: a real aggregator, without a broker, and edges that only do sums.

The aggregator can be killed before any of its effects, and is resumed from its directory. Each message is encoded and
decoded on its way.
"""

from __future__ import annotations

import hashlib
import math
from base64 import urlsafe_b64decode
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Final

import numpy as np

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
from fl_shared.masking.answers import Declined, open_shares, sign_closing
from fl_shared.masking.masked_update import mask_update
from fl_shared.masking.plan import Plan, plan_of
from fl_shared.masking.run_keys import RunKeys
from fl_shared.masking.tallies import NO_NUMBERS
from fl_shared.privacy.gaussian_noise import noise
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.masked import MASKED, RAW
from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support.builders import ACCURACY
from tests.support.clipped_updates import clip_to_grid
from tests.support.masked_rounds import fixed_random, keys_of, of_array

VALUES: Final = 40
MANIFEST: Final = Manifest(
    arrays=(
        ArraySpec(name="mean", shape=(10,), role="buffer"),
        ArraySpec(name="w", shape=(30,)),
    )
)
PARAMETERS_ONLY: Final = Manifest(arrays=(ArraySpec(name="w", shape=(VALUES,)),))
"""That of a model without buffers."""
MAX_DELTA: Final = 4.0


class Killed(Exception):
    """The aggregator has ended without warning."""


class MaskedEdge:
    """An edge. ``lost_in``: for each round, in which of ``update``, ``sign`` and ``open`` it says nothing.

    ``masked``: whether it masks its updates. It signs one set a round, and keeps which.
    """

    def __init__(self, name: str, *, masked: bool, manifest: Manifest = MANIFEST) -> None:
        self.name = name
        self.manifest = manifest
        self.masked = masked
        self.keys = keys_of(name)
        self.starts = 1
        self.lost_in: dict[int, Collection[str]] = {}
        self.signed: dict[int, str] = {}
        self.updates: dict[int, m.Update] = {}
        self.rejections: list[m.Rejected] = []
        self.refusals: list[m.Refused] = []
        self.partition: m.Partition | None = None
        self.plan: Plan | None = None
        self.answers: list[m.Message] = []
        self.integers: dict[int, Int64s] = {}
        """By round, what it has masked."""
        self.adds_noise = True
        self.wrong_tallies: dict[int, list[float]] = {}
        """By round, what it says in place of `tallies`."""
        self.tamper: Callable[[m.Message], m.Message] = lambda message: message
        """What a bad edge makes of its messages."""

    @property
    def session(self) -> str:
        return f"session-{self.name}-{self.starts}"

    def examples(self, number: int) -> int:
        return 3 + int(hashlib.sha256(f"{self.name} {number}".encode()).digest()[0]) % 40

    def delta(self, number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        seed = int.from_bytes(hashlib.sha256(f"{self.name} {number}".encode()).digest()[:8], "big")
        return np.random.default_rng(seed).normal(size=VALUES).clip(-MAX_DELTA, MAX_DELTA).astype("<f4")

    def tallies(self, number: int) -> list[float]:
        """Examples, those of the holdout, and the loss in training, both metrics before and after it."""
        return [self.examples(number), 2.0, 0.25, 0.5, 0.75, 0.125, 0.875, 0.0]

    def registration(self, admitted: m.Admitted | None = None) -> m.Registration:
        usual: dict[str, Any] = {
            "seq": 1, "client": self.name, "session": self.session, "device": f"device-{self.name}",
            "roles": ("train",), "encodings": ("f32",),
        }  # fmt: skip
        if admitted is not None:
            assert admitted.masked == self.masked
            usual |= {
                "run": admitted.run, "incarnation": admitted.incarnation, "task": admitted.task,
                "manifest": self.manifest.digest, "metrics": (ACCURACY,),
                "examples": 1 if self.masked or admitted.private else 20,
                "keys": self.keys.announce(admitted.run, self.name, None) if self.masked else None,
            }  # fmt: skip
        return m.Registration(**usual)

    def hear(self, topic: t.Topic, message: m.Message, scope: dict[str, Any]) -> Iterator[m.Message]:
        """What it says to a message. ``scope``: an envelope."""
        answer = {**scope, "client": self.name, "session": self.session}
        match message:
            case m.Admitted(client=self.name, session=self.session, examples=None):
                self.partition = message.partition
                yield self.registration(message)
            case m.Refused(client=self.name):
                self.refusals.append(message)
            case m.Rejected(client=self.name):
                self.rejections.append(message)
            case m.Selected(round=number) if self.name in (message.cohort or ()) or topic == t.WorkTopic(
                self.name
            ):
                if message.masked is not None:
                    assert self.partition is not None
                    self.plan = plan_of(message, self.partition, self.manifest.digest, VALUES)
                if "update" not in self.lost_in.get(number, ()):
                    yield self._update(message, answer)
            case m.Closing(round=number) if topic == t.UnmaskTopic(self.name):
                if "sign" not in self.lost_in.get(number, ()):
                    yield self._sign(message, answer)
            case m.Reveal(round=number) if topic == t.UnmaskTopic(self.name):
                if "open" not in self.lost_in.get(number, ()):
                    yield self._open(message, answer)
            case _:
                pass

    def _update(self, selected: m.Selected, answer: dict[str, Any]) -> m.Update:
        number, examples = selected.round, self.examples(selected.round)
        if number in self.updates:  # sent again as it was
            return self.updates[number].model_copy(update=answer)
        usual: dict[str, Any] = {
            **answer, "round": number, "base": None if selected.base is None else selected.base.digest,
            "examples": examples, "steps": 1, "seconds": 0.5,
        }  # fmt: skip
        if selected.masked is None:
            counts = self.tallies(number)
            metrics = m.UpdateMetrics(
                before={"loss": counts[3], "accuracy": counts[4]},
                after={"loss": counts[5], "accuracy": counts[6]},
                train={"loss": counts[2]},
            )
            arrays = self.manifest.arrays if selected.base is None else None
            data = self.delta(number).tobytes()
            section = m.Section(
                name="delta", encoding="f32", manifest=self.manifest.digest, arrays=arrays, data=data
            )
            return self._made(number, (section,), {**usual, "metrics": metrics})
        assert self.plan is not None
        factor = examples * 2.0**selected.fold.scale_bits
        integers = np.rint(self.delta(number).astype(np.float64) * factor).astype(np.int64)
        if selected.privacy is not None:
            integers = self._with_noise(selected, selected.privacy)
        self.integers[number] = integers.copy()
        count, holdout, train, *of_holdout = self.wrong_tallies.get(number, self.tallies(number))
        tallies = np.rint(
            [count, holdout, *(2.0**20 * one for one in (count * train, *(holdout * x for x in of_holdout)))]
        ).astype(np.int64)
        if selected.privacy is not None and number not in self.wrong_tallies:
            tallies = NO_NUMBERS.integers()
        made = mask_update(
            self.plan,
            self.name,
            self.keys,
            of_array(integers),
            tallies,
            fixed_random(f"{self.name} {number}"),
        )
        contents = {
            "delta": (MASKED[self.plan.bits].name, self.manifest.digest, bytes(made.delta)),
            "shares": (RAW.name, _bytes_manifest("shares", len(made.shares)), made.shares),
            "tallies": (MASKED[64].name, _bytes_manifest("tallies", 8), bytes(made.tallies)),
        }
        sections = tuple(
            m.Section(name=name, encoding=encoding, manifest=manifest, data=data)
            for name, (encoding, manifest, data) in contents.items()
        )
        usual |= {"examples": 1, "steps": 0, "seconds": 0.0, "plan": self.plan.digest.hex()}
        return self._made(number, sections, {**usual, "metrics": m.UpdateMetrics()})

    def _with_noise(self, selected: m.Selected, privacy: m.RoundPrivacy) -> Int64s:
        assert selected.masked is not None
        places, masked = selected.fold.scale_bits, selected.masked
        integers = clip_to_grid(self.delta(selected.round), privacy.clip, places)
        if self.adds_noise:
            key = hashlib.sha256(f"noise {self.name} {selected.round}".encode()).digest()
            part = privacy.noise * privacy.clip / math.sqrt(masked.least - masked.colluders)
            integers += noise([(key, part * 2.0**places)], 0, VALUES)
        return integers

    def _made(self, number: int, sections: tuple[m.Section, ...], usual: dict[str, Any]) -> m.Update:
        digest = content_digest([(s.name, s.encoding, s.manifest, s.data) for s in sections])
        self.updates[number] = m.Update(**usual, digest=digest, sections=sections)
        return self.updates[number]

    def _sign(self, closing: m.Closing, answer: dict[str, Any]) -> m.Message:
        assert self.plan is not None
        digest = self.plan.closing(closing.included).hex()
        if self.signed.setdefault(closing.round, digest) != digest:
            return m.Declined(
                **answer, round=closing.round, closing=digest, reason="another-set", detail="signed another"
            )
        try:
            signature = sign_closing(self.plan, self.name, self.keys, closing)
        except Declined as error:
            return m.Declined(
                **answer, round=closing.round, closing=digest, reason=error.reason, detail=str(error)
            )
        return m.Agreed(**answer, round=closing.round, closing=digest, signature=signature)

    def _open(self, reveal: m.Reveal, answer: dict[str, Any]) -> m.Message:
        assert self.plan is not None
        digest = self.plan.closing(reveal.included).hex()
        assert self.signed.setdefault(reveal.round, digest) == digest, "asked to open two sets"
        signatures, packages = _decoded(reveal.signatures), _decoded(reveal.packages)
        try:
            opened = open_shares(self.plan, self.name, self.keys, reveal, signatures, packages)
        except Declined as error:
            return m.Declined(
                **answer, round=reveal.round, closing=digest, reason=error.reason, detail=str(error)
            )
        return m.Opened(
            **answer, round=reveal.round, closing=digest, digest=hashlib.sha256(opened.shares).hexdigest(),
            shares=opened.shares, unopened=opened.unopened,
        )  # fmt: skip


def _bytes_manifest(name: str, values: int) -> str:
    return Manifest(arrays=(ArraySpec(name=name, shape=(values,)),)).digest


def _decoded(texts: dict[str, str]) -> dict[str, bytes]:
    return {name: urlsafe_b64decode(text + "=" * (-len(text) % 4)) for name, text in texts.items()}


class MaskedFederation:
    """An aggregator with its edges, whose names are ``0`` … . ``settings``: those of the run."""

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
            self.runner.interpreter.status_publisher.publish_status(
                self.state, self.now, None, self.rejections, force=True
            )
        self._work()

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


def new_keys(edge: MaskedEdge) -> None:
    """The edge has lost its state directory."""
    edge.keys = RunKeys.generate(fixed_random(f"new {edge.name}"))
