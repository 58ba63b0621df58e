"""Real sessions of edges that receive bad messages from the aggregator and from askers.

Reception, sessions, model downloads and the predictor are real, and so are the jobs (on a task without data).
Three parts are not: the connections, which discard messages; the clock, which the harness advances; and the
worker processes, since jobs run at once in this process.
"""

from __future__ import annotations

import queue
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, cast

from fl_edge.messaging.connection import EdgeConnection, EdgeConnectionEvent
from fl_edge.prediction.newest_model import FETCH_RETRY_DELAY, PREDICTION_FETCH_TIMEOUT
from fl_edge.runtime.dispatcher import Dispatcher
from fl_edge.runtime.edge import Edge
from fl_edge.runtime.heartbeat import Heartbeat
from fl_edge.runtime.items import RuntimeInbox
from fl_edge.runtime.log_readers import LogReaders
from fl_edge.runtime.loop import Runtime
from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.runtime.recent_lines import RecentLines
from fl_edge.runtime.remote_log import RemoteLog
from fl_edge.session.state import Identity, Session, Stopped
from fl_edge.storage import update_store
from fl_edge.storage.label_counts_file import LabelCountsFile
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_edge.workers.pool import Pool
from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.connection import Connection
from fl_shared.mqtt.network import Network
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from tests.support.fuzz import packets
from tests.support.fuzz.aggregator_messages import CLIENT, PARTITION, AggregatorMessages
from tests.support.fuzz.fake_network import FakeConnection, FakeNetwork
from tests.support.fuzz.inline_pool import InlinePool, requests
from tests.support.fuzz.mutations import Mutator, Seed, golden

PREDICTOR: Final = "edge-2"
GOLDEN: Final = golden(CLIENT)
LAST_ROUND: Final = 2**52
FRESH: Final = 150
"""Messages after which the aggregator has moved on to a new round or model."""
STEP: Final = 0.002
"""Seconds that pass with each message."""


class Request(NamedTuple):
    """A prediction request."""

    topic: str
    payload: bytes
    retain: bool
    response_topic: str | None
    correlation: bytes | None


class EdgeHarness:
    """Two edges under test, or more with more ``predictors``. ``masked``: the part of the runs that are masked.

    ``noise`` makes bad messages; `join_a_run` proves that the edges still work.
    """

    def __init__(
        self,
        directory: Path,
        seed: int,
        heartbeat: Path | None = None,
        predictors: int = 1,
        masked: float = 0.5,
    ) -> None:
        self.mutator = Mutator(random.Random(seed))
        self.rng = self.mutator.rng
        self.now = 1000.0
        self.rounds = self.masked_rounds = self.own_sums = self.answers = self.restarts = 0
        self.stopped: dict[str, int] = {}
        self._directory = directory
        self._masked = masked
        self._keeper = update_store.UpdateWriter()
        self._sent: dict[str, m.Message] = {}
        self.aggregator = AggregatorMessages(self.rng)
        self._model = self.aggregator.model()
        self._round = 0
        self._fresh = FRESH
        self._requests = requests()
        self._heartbeat = heartbeat
        self._predictors = [PREDICTOR, *(f"{PREDICTOR}-{number}" for number in range(1, predictors))]
        self._start()

    def close(self) -> None:
        self._pool.close()
        self._keeper.close()

    # --- the two edges ------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.inbox = RuntimeInbox()
        self._network, self._ask = FakeNetwork(self._published), FakeNetwork(self._published)
        self._pool = InlinePool(self.inbox.put)
        everything: tuple[m.ClientRole, ...] = ("train", "predict", "evaluate")
        edges = [self._edge(CLIENT, everything)]
        edges += [self._edge(name, ("predict",)) for name in self._predictors]
        self.edges = {edge.client: edge for edge in edges}
        self.runtime = Runtime(
            edges, Dispatcher(cast(Pool, self._pool), LabelCountsFile(None)), self.inbox, self._keeper,
            prefix="fl", broker="nowhere",
            broker_timeout=None, clock=lambda: self.now,
            heartbeat=None if self._heartbeat is None else Heartbeat(self._heartbeat, self.now),
            remote_log=RemoteLog(edges, LogReaders(RecentLines(lambda _: True), allowed=True, sealer_for=None)),
        )  # fmt: skip
        for edge in edges:
            edge.connection = edge.connect(partial(self.runtime._enqueue, edge.client))
        self.turn()

    def _edge(self, client: str, roles: tuple[m.ClientRole, ...]) -> Edge:
        identity = Identity(
            client, f"device-{client}", roles, (), None, task_prefixes=("synthetic-",), chunk_size=4096
        )
        settings = mqtt.ConnectionSettings(BrokerAddress.parse("mqtt://127.0.0.1"))

        def connect(post: Callable[[EdgeConnectionEvent], None]) -> EdgeConnection:
            return EdgeConnection(cast(Network, self._network), settings, "fl", client, roles, post)

        def connect_predictor(post: Callable[[mqtt.ConnectionEvent], None]) -> Connection:
            line: FakeConnection = self._ask.connect(settings, post)
            return cast(Connection, line)

        file = self._directory / f"{client}.kept"
        return Edge(
            Session(identity, restored_update=update_store.read(file, client)),
            file,
            MaskedMember(client, RunKeysFile(self._directory, client)),
            connect,
            connect_predictor,
        )

    def turn(self) -> None:
        """Does what `Runtime.run` does, until nothing is left to do."""
        while True:
            try:
                item = self.inbox.get(0)
            except queue.Empty:
                break
            self.runtime._handle(item)
        self.runtime._run_timers(self.now)
        self.runtime._stop_remaining_evaluators()
        self.runtime._process_events()

    def take(self, client: str, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Handles one message on the connection of an edge's session, with everything that follows.

        It comes in a packet with any properties, some of which are broken.
        """
        arrived = packets.received(self.rng, topic, payload, retain=retain)
        if arrived is not None:
            self._take(client, arrived)

    def _take(self, client: str, arrived: mqtt.Received) -> None:
        self.now += STEP
        self.runtime._enqueue(client, arrived)
        self.turn()

    def take_request(self, request: Request) -> None:
        """Handles a prediction request that comes in such a packet."""
        arrived = packets.received(self.rng, **request._asdict())
        if arrived is not None:
            self.ask(arrived)

    def ask(self, received: mqtt.Received) -> None:
        """Handles a prediction request."""
        self.now += STEP
        self.runtime._enqueue_for_predictions(PREDICTOR, received)
        self.turn()

    def reconnect(self) -> None:
        """Loses the connection of an edge and connects it again."""
        settings, on_event = self.rng.choice(self._network.opened)
        on_event(mqtt.Lost("it blinked", 0))
        self.turn()
        self._network.up(settings, on_event)
        self.turn()

    def lose_broker(self) -> None:
        """Loses all connections."""
        for _, on_event in self._network.opened:
            on_event(mqtt.Lost("it is gone", 0))
        self.turn()

    def find_broker(self) -> None:
        """Connects all edges again."""
        for settings, on_event in self._network.opened:
            self._network.up(settings, on_event)
        self.turn()

    def restart_stopped(self) -> None:
        """Starts edges again that have stopped, as an aggregator may tell them to."""
        ended = [edge.state for edge in self.edges.values() if isinstance(edge.state, Stopped)]
        for state in ended:
            what = state.reason.split(":")[0].split(" ")[0]
            self.stopped[what] = self.stopped.get(what, 0) + 1
        if ended:
            self.restarts += 1
            self._pool.close()
            self._start()

    def _session(self, client: str = CLIENT) -> str:
        state = self.edges[client].state
        line = state.connection if isinstance(state, Session) else None
        return "none" if line is None else line.session

    def _published(self, topic: str, payload: bytes) -> None:
        """Checks that an aggregator, or an asker, can read what an edge sends."""
        where = CHANNELS.parse("fl", topic)
        if where is None:
            where = t.PredictionsTopic()  # a response topic of the asker's own
        message = codec.decode(where, payload)
        if isinstance(message, m.Prediction):
            self.answers += 1
        elif not isinstance(message, m.Registration) or message.client == CLIENT:
            self._sent[message.kind] = message

    # --- honest work --------------------------------------------------------------------------------------

    def say(self, topic: t.Topic, message: m.Message, client: str = CLIENT) -> None:
        retain = isinstance(topic, t.ModelTopic)
        self._take(client, mqtt.Received(t.build("fl", topic), codec.encode(message), retain, 1))

    def join_a_run(self) -> None:
        """Joins a new run: the edge registers, trains and is accepted, and a request is answered."""
        self.restart_stopped()
        aggregator = self.aggregator
        aggregator.run = f"run{self.rng.randrange(10**9)}"
        aggregator.masked, aggregator.keys = self.rng.random() < self._masked, None
        self._model = aggregator.model()
        aggregator.newest.clear()
        self._sent.clear()
        for client in self.edges:
            session, partition = self._session(client), PARTITION if client == CLIENT else None
            state = self.edges[client].state
            if isinstance(state, Session) and state.aggregator is not None:
                # As the aggregator says of another one that it hears.
                gone = state.aggregator.model_copy(update={"state": "offline"})
                self.say(t.AggregatorTopic(), gone, client)
            self.say(t.AggregatorTopic(), aggregator.birth(), client)
            self.say(t.RepliesTopic(client), aggregator.admitted(client, session, partition, None), client)
        registered = self._sent["register"]
        assert isinstance(registered, m.Registration)
        assert (registered.keys is not None) == aggregator.masked
        aggregator.keys = registered.keys
        self.say(t.RepliesTopic(CLIENT), aggregator.admitted(CLIENT, self._session(), PARTITION, 1))
        number = self.rng.randrange(1, 1000)
        selected = aggregator.selected(number, self._model)
        self.say(t.SelectedTopic(number), selected)
        for client in self.edges:
            self.say(t.ModelTopic(), aggregator.announcement(number - 1, self._model), client)
        for topic, message in aggregator.pieces(self._model):
            self.say(topic, message)
        update = self._sent.get("update") or self._sent.get("offer")
        assert isinstance(update, m.Update | m.Offer), f"no update: {self.edges[CLIENT].state}"
        assert (update.run, update.round, update.base) == (aggregator.run, number, self._model.digest)
        assert (update.plan is not None) == aggregator.masked
        grant, accepted, _ = aggregator.answers(self._session(), number, update.digest)
        if isinstance(update, m.Offer):
            self.say(t.RepliesTopic(CLIENT), grant)
            part = self._sent["update-chunk"]
            assert isinstance(part, m.UpdateChunk)
            assert (part.digest, part.index) == (update.digest, min(1, update.chunks - 1))
        self.say(t.RepliesTopic(CLIENT), accepted)
        state = self.edges[CLIENT].state
        assert isinstance(state, Session)
        assert state.last_handled_round >= number, state
        if selected.masked is not None:
            self._unmask(selected)
        self.rounds += 1
        self._round = number
        self._ask_well()

    def _unmask(self, selected: m.Selected) -> None:
        """Checks that the edge signs a good set, and opens it."""
        update = self._sent.get("update")
        own = update if isinstance(update, m.Update) else None  # else it has gone in chunks, and is lost
        for asked in self.aggregator.unmasking(selected, own):
            self.say(t.UnmaskTopic(CLIENT), asked)
            answer = self._sent.get("agreed" if isinstance(asked, m.Closing) else "opened")
            assert isinstance(answer, m.Agreed | m.Opened), self._sent.get("declined")
            assert (answer.round, getattr(answer, "unopened", ())) == (selected.round, ())
            self.own_sums += own is not None
        self.masked_rounds += 1

    def _ask_well(self) -> None:
        """Checks that a valid request is answered in time, with a model or without one."""
        before, asked_until = self.answers, self.now + PREDICTION_FETCH_TIMEOUT + 2 * FETCH_RETRY_DELAY
        while self.answers == before:
            assert self.now < asked_until, "a good request is not answered"
            for topic, message in self.aggregator.pieces(self._model):
                self.say(topic, message, PREDICTOR)
            self.ask(mqtt.Received("fl/predict", self._requests[0], False, 1, "answers/1", b"1"))
            self.now += 10.0
            self.turn()

    # --- noise --------------------------------------------------------------------------------------------

    def seeds(self) -> list[Seed]:
        """The messages that a correct aggregator might send now, about new rounds."""
        state = self.edges[CLIENT].state
        if isinstance(state, Session) and self._round <= state.last_handled_round < LAST_ROUND:
            self._round = state.last_handled_round
        self._fresh = FRESH
        said = self.aggregator.all_messages(self._round + 1, self._session(), self._model)
        return [self._seed(*what) for what in said]

    def _seed(self, topic: t.Topic, message: m.Message) -> Seed:
        return Seed(t.build("fl", topic), codec.encode(message))

    def _answer(self, seeds: list[Seed]) -> None:
        """Replaces seeds by answers to what the edge has just sent."""
        update = self._sent.pop("update", None) or self._sent.pop("offer", None)
        if isinstance(update, m.Update | m.Offer):
            for reply in self.aggregator.answers(self._session(), update.round, update.digest):
                seeds[self.rng.randrange(len(seeds))] = self._seed(t.RepliesTopic(CLIENT), reply)
            selected = self.aggregator.newest.get(update.round)
            if isinstance(update, m.Update) and selected is not None and selected.masked is not None:
                for asked in self.aggregator.unmasking(selected, update):
                    seeds[self.rng.randrange(len(seeds))] = self._seed(t.UnmaskTopic(CLIENT), asked)

    def noise(self, seeds: list[Seed]) -> tuple[str, str, bytes, bool]:
        """The next bad message: to whom, topic, payload, whether it was retained."""
        self._fresh -= 1
        if self._fresh == 0:
            seeds[:] = self.seeds()
        self._answer(seeds)
        source = GOLDEN if self.rng.random() < 0.15 else seeds
        seed = self.rng.choice(source)
        client = CLIENT if self.rng.random() < 0.85 else PREDICTOR
        if self.rng.random() < 0.3:
            # The message is unchanged, but out of place: so a download sometimes ends, and there is news to
            # report.
            return client, seed.topic, seed.payload, self.rng.random() < 0.3
        topic, payload = self.mutator.topic(seed.topic, source), self.mutator.payload(seed, source)
        return client, topic, payload, self.rng.random() < 0.3

    def request(self) -> Request:
        """A bad prediction request."""
        rng = self.rng
        seeds = [
            Seed(topic, one) for one in self._requests for topic in ("fl/predict", f"fl/predict/{PREDICTOR}")
        ]
        seed = rng.choice(seeds)
        response = rng.choice(
            (None, "answers/me", "fl/predictions/me", "fl/status", "$SYS/x", "a/+/b", "", "\0", "x" * 65_535)
        )
        if response is not None and rng.random() < 0.3:
            response = self.mutator.topic(response, seeds)
        return Request(
            self.mutator.topic(seed.topic, seeds), self.mutator.payload(seed, seeds), rng.random() < 0.05, response,
            rng.choice((None, b"", b"1", rng.randbytes(100))),
        )  # fmt: skip
