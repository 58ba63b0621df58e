"""One edge in virtual time: its session, and what performs its effects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, assert_never

from fl_edge.messaging.model_store import FetchedModel
from fl_edge.messaging.translate import event_of, event_of_cleared
from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.session import effects, events, machine
from fl_edge.session.masking import UnacceptablePlan
from fl_edge.session.state import Identity, LoadedPartition, Session, SessionState, Stopped
from fl_edge.session.work import PendingUpdate
from fl_edge.storage.own_state_files import OwnStateFiles
from fl_mqtt.simulation.virtual.devices import Device
from fl_mqtt.simulation.virtual.jobs import Jobs, Work
from fl_mqtt.simulation.virtual.models import Models
from fl_mqtt.simulation.virtual.network import Network
from fl_mqtt.simulation.virtual.world import World
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.sections import WEIGHTS
from fl_shared.transfer.download import REQUEST_TIMEOUT
from fl_shared.transfer.upload import chunk_message

LOG: Final = logging.getLogger(__name__)

LOAD_SECONDS: Final = 1.0
"""An edge needs that long to load its data."""


class Edge:
    """An edge that can be connected, disconnected, killed and started again.

    ``epochs``: of a training whose request leaves that to the task. What is on its disk survives its death: the update
    that is not answered yet, ``own_state``, and the keys of ``member``.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        models: Models,
        jobs: Jobs,
        identity: Identity,
        device: Device,
        own_state: OwnStateFiles,
        member: MaskedMember,
        epochs: int,
    ) -> None:
        self.device = device
        self.identity = identity
        self.state: SessionState
        self.life = 0
        """How often its program was started."""
        self.on_training: Callable[[int, int, float], None] = lambda _round, _job, _seconds: None
        """Is told when a training begins: its round and job, and how long it takes."""
        self.on_stop: Callable[[Stopped], None] = lambda _state: None
        """Is told when the edge has ended by itself."""
        self._world = world
        self._network = network
        self._models = models
        self._jobs = jobs
        self._own_state = own_state
        self._member = member
        self._epochs = epochs
        self._saved: PendingUpdate | None = None
        self._seq = int(world.now * 1000)
        self._sessions = 0
        self._due: float | None = None
        self._running: set[int] = set()
        """The jobs whose result will be looked at."""
        self._fetches: dict[int, effects.Fetch] = {}
        self._fetched: dict[int, tuple[FetchedModel, ...]] = {}
        """By job, its model and the companions."""
        self.start()

    # --- life -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts its program, without a connection."""
        self.life += 1
        self.state = Session(
            self.identity,
            seq=self._seq,
            restored_update=self._saved,
            own_state=self._own_state.read(),
            masked_run=self._member.restored(),
        )

    def kill(self) -> None:
        """Ends its program without warning, with all its jobs."""
        self._seq = self.state.seq if isinstance(self.state, Session) else self._seq
        self._network.disconnect(self.identity.client)
        for job in {*self._running, *self._fetches, *self._fetched}:
            self._cancel(job)
        self._due = None
        self.start()

    def connect(self) -> None:
        """Connects to the broker, under a new session."""
        client, self._sessions = self.identity.client, self._sessions + 1
        session = f"{int(self._world.now * 1000):x}-{self._sessions}"
        will = m.ClientPresence(client=client, state="offline", session=session)
        self._network.connect(client, self.device.link, self.identity.roles, self._receive, will)
        self.handle(events.ConnectionEstablished(self._world.now, session))
        for fetch in tuple(self._fetches.values()):
            self._fetch(fetch)

    def disconnect(self) -> None:
        """Loses its connection; its work goes on."""
        if self._network.is_connected(self.identity.client):
            self._network.disconnect(self.identity.client)
            self.handle(events.ConnectionLost(self._world.now))

    # --- events ---------------------------------------------------------------------------------------------

    def _receive(self, topic: t.Topic, message: m.Message | None, retained: bool) -> None:
        client, now = self.identity.client, self._world.now
        event = (
            event_of_cleared(client, topic, now)
            if message is None
            else event_of(client, topic, message, retained=retained, now=now)
        )
        if event is not None:
            self.handle(event)

    def handle(self, event: events.Event) -> None:
        """Gives the session an event, and performs its effects."""
        if isinstance(self.state, Stopped):
            return
        self.state, found = machine.step(self.state, event)
        for effect in found:
            self._perform(effect)
        if isinstance(self.state, Stopped):
            self.on_stop(self.state)
        due = machine.due(self.state)
        if due is not None and due != self._due:
            self._world.at(due, lambda: self._time_passed(due))
        self._due = due

    def _time_passed(self, due: float) -> None:
        if self._due == due:
            self._due = None
            self.handle(events.TimePassed(self._world.now))

    # --- effects --------------------------------------------------------------------------------------------

    def _perform(self, effect: effects.Effect) -> None:
        client = self.identity.client
        match effect:
            case effects.Send(topic=topic, message=message, retain=retain):
                self._network.send(client, topic, message, retain=retain)
            case effects.SendChunks():
                for number, index in enumerate(effect.chunks, effect.first_seq):
                    chunk = chunk_message(effect.sender, number, effect.update, effect.chunk_size, index)
                    self._network.send(client, t.UpdatesTopic(client), chunk)
            case effects.SaveUpdate(pending=pending):
                self._saved = pending
            case effects.DeleteUpdate():
                self._saved = None
            case effects.Charge():
                raise AssertionError("an edge in virtual time counts nothing")
            case effects.StageState(reference=reference, vectors=vectors):
                self._own_state.stage(reference, vectors)
            case effects.PromoteState():
                self._own_state.promote()
            case effects.DropState(staged=staged, current=current, personal=personal):
                self._own_state.drop(staged=staged, current=current, personal=personal)
            case effects.KeepPersonal(reference=reference, vectors=vectors):
                self._own_state.keep_personal(reference, vectors)
            case effects.Load():
                self._begin(Work(effect), LOAD_SECONDS)
            case effects.Fetch(job=job, timeout=timeout):
                self._fetches[job] = effect
                self._world.after(timeout, lambda: self._fetch_failed(effect, "it did not arrive in time"))
                self._fetch(effect)
            case effects.Train():
                self._train(effect)
            case effects.Evaluate(job=job, run=run, split=split):
                examples = self._holdout if split == "holdout" else None
                seconds = self.device.evaluation_seconds(examples)
                self._begin(Work(effect, self._fetched.pop(job), self._own_of(run)), seconds)
            case effects.Personalize(job=job, announced=announced):
                assert announced.training is not None
                work = Work(effect, self._fetched.pop(job), self._own_state.current())
                self._begin(work, self._training_seconds(announced.training.epochs))
            case effects.MakeRunKeys(run=run):
                self._soon(self._member.make_keys(run, self._world.now))
            case effects.DropRunKeys():
                self._member.drop_keys()
            case effects.WorkOutAnswer():
                self._soon(self._member.answer(effect, self._world.now))
            case effects.Cancel(job=job):
                self._cancel(job)
            case effects.ServeModel():
                pass  # nobody asks for predictions
            case effects.LogNotice(text=text, level=level):
                LOG.log(getattr(logging, level.upper()), "%s", text, extra={"client": client})
            case effects.Disconnect():
                self._network.disconnect(client)
            case _:
                assert_never(effect)

    def _soon(self, event: events.Event) -> None:
        """Gives the session an event when it has done all that it does now, unless its program is killed before."""
        life = self.life
        self._world.after(0.0, lambda: self.handle(event) if life == self.life else None)

    # --- models ---------------------------------------------------------------------------------------------

    def _fetch(self, effect: effects.Fetch) -> None:
        """Begins to fetch a model with its companions, if they are published; else it looks again later."""
        if self._fetches.get(effect.job) is not effect:
            return
        wanted = {effect.digest: WEIGHTS, **{one.digest: one.section for one in effect.companions}}
        sizes = [self._models.size(digest) for digest in wanted]
        if None in sizes:
            self._world.after(REQUEST_TIMEOUT, lambda: self._fetch(effect))
            return
        size = sum(size for size in sizes if size is not None)
        self._network.transfer(self.identity.client, size, lambda: self._transferred(effect, wanted))

    def _transferred(self, effect: effects.Fetch, wanted: Mapping[str, str]) -> None:
        if self._fetches.get(effect.job) is not effect:
            return
        models = [self._models.get(digest, section) for digest, section in wanted.items()]
        if any(model is None for model in models):
            self._fetch_failed(effect, "it was superseded by a newer version")
            return
        del self._fetches[effect.job]
        self._fetched[effect.job] = tuple(model for model in models if model is not None)
        self.handle(events.Fetched(self._world.now, effect.job))

    def _fetch_failed(self, effect: effects.Fetch, reason: str) -> None:
        if self._fetches.get(effect.job) is effect:
            del self._fetches[effect.job]
            self.handle(events.JobFailed(self._world.now, effect.job, f"the model: {reason}"))

    # --- jobs -----------------------------------------------------------------------------------------------

    @property
    def _loaded(self) -> LoadedPartition | None:
        state = self.state.partition_state if isinstance(self.state, Session) else None
        return state if isinstance(state, LoadedPartition) else None

    @property
    def _holdout(self) -> int:
        return 0 if self._loaded is None else self._loaded.holdout

    def _own_of(self, run: str) -> Mapping[str, memoryview]:
        current = self.state.own_state.current if isinstance(self.state, Session) else None
        return {} if current is None or current.run != run else self._own_state.current()

    def _train(self, effect: effects.Train) -> None:
        selected = effect.selected
        models = () if selected.base is None else self._fetched.pop(effect.job)
        seconds = self._training_seconds(selected.training.epochs) if models else 0.0
        manifest = models[0].weights.manifest if models else None
        try:
            masking = self._member.masking(selected, effect.partition, manifest)
        except UnacceptablePlan as error:
            self._soon(events.JobFailed(self._world.now, effect.job, str(error), told=str(error)))
            return
        self._begin(Work(effect, models, self._own_state.current(), masking), seconds)
        self.on_training(selected.round, effect.job, seconds)

    def is_running(self, job: int) -> bool:
        """Whether a job has begun, and its result will be looked at."""
        return job in self._running

    def _training_seconds(self, epochs: int | None) -> float:
        loaded = self._loaded
        if loaded is None:
            return 0.0
        return self.device.training_seconds(loaded.examples, loaded.holdout, epochs or self._epochs)

    def _begin(self, work: Work, seconds: float) -> None:
        """Begins a job, whose result is looked at in ``seconds``."""
        number, life = work.effect.job, self.life
        self._running.add(number)
        self._jobs.begin(self.identity.client, work, self._world.now + seconds)
        self._world.after(seconds, lambda: self._finish(number, life, seconds))

    def _finish(self, job: int, life: int, seconds: float) -> None:
        if life != self.life or job not in self._running:
            return
        self._running.remove(job)
        event = self._jobs.result(self.identity.client, job, self._world.now)
        if isinstance(event, events.Trained) and event.body is None:
            event = replace(event, update=replace(event.update, seconds=seconds))
        self.handle(event)

    def _cancel(self, job: int) -> None:
        self._fetches.pop(job, None)
        self._fetched.pop(job, None)
        if job in self._running:
            self._running.remove(job)
            self._jobs.cancel(self.identity.client, job)
