"""An aggregator, honest edges that it must serve, and noise from others.

Honest edges make no mistakes, and no other client uses their sessions, as if accounts prevented it. The noise
imitates the other edges and is valid except for one mutation, so that it gets as far as possible.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Aggregating, Collecting, Selecting
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.encodings import registry
from fl_shared.tensors.manifest import Vector
from fl_shared.transfer import upload
from fl_shared.transfer.publication import chunk_count
from tests.support.fuzz.loop_harness import LoopHarness
from tests.support.fuzz.model_oracle import HONEST, REGION, REGION_EDGES, VALUES, ModelOracle, Peer
from tests.support.fuzz.mutations import Seed, golden
from tests.support.fuzz.peer_updates import PeerUpdates, corrupt

NOISY: Final = ("n1", "n2", "n3", "n4")
CHUNK: Final = 8_192
GOLDEN: Final = golden(NOISY[-1])


class AggregatorHarness(LoopHarness):
    """An aggregator under test. ``noise`` makes bad messages; `finish_round` proves that it still works.

    Edges send their updates in ``encoding``, and a regional aggregator sends sums if there may be one.
    """

    def __init__(self, directory: Path, seed: int, encoding: str = "f32") -> None:
        settings = Settings(
            task=f"synthetic-{VALUES}", clients=7, per_round=7, quorum=len(HONEST), rounds=1_000_000, grace=0.0,
            deadline=1e8, wait=1e8, evaluate_every=5, seed=seed, chunk=CHUNK, encoding=encoding,
            edges_per_round=6 + REGION_EDGES,
        )  # fmt: skip
        super().__init__(directory, settings)
        self.answers: dict[str, m.Reply] = {}
        self.grants: dict[tuple[str, str], list[int]] = {}
        """The chunks that are granted, by client and digest."""
        self.updates_of = PeerUpdates(np.random.default_rng(seed), settings.scale_bits)
        self.updates: dict[tuple[str, str], upload.FinishedUpdate] = {}
        """The updates of the noisy edges, good and corrupted, by client and digest."""
        self.peers = {name: Peer(name, f"device-{name}") for name in (*HONEST, *NOISY, "eve")}
        if not registry.get(
            encoding
        ).feedback:  # what an edge keeps counts by its own update, so there are no sums
            self.peers[REGION].edges = REGION_EDGES
        self.oracle = ModelOracle(settings, self.launch.directory.spool, self._newest, self.peers)
        self.rounds = 0
        self.start()

    def see(self, effects: tuple[do.Effect, ...]) -> None:
        """Checks the models."""
        self.oracle.see(effects)

    def hear(self, topic: t.Topic, message: m.Message) -> None:  # noqa: ARG002
        """Keeps what edges are answered."""
        if isinstance(message, m.Grant):
            asked = self.grants.setdefault((message.client, message.digest), [])
            asked[:] = [*asked[-16:], *message.chunks]
        elif isinstance(message, m.Reply):
            self.answers[message.client] = message

    def _newest(self) -> Vector:
        return self.aggregator._worker.averager.newest.weights

    # --- honest messages -------------------------------------------------------------------------------

    def register(self, peer: Peer) -> None:
        """Registers a peer with a new session, whatever others have sent in its name."""
        known = self.state.roster.get(peer.name)
        if known is not None and known.device != peer.device:
            self.say(
                t.PresenceTopic(peer.name),
                m.ClientPresence(client=peer.name, state="offline", session=known.session),
            )
        peer.session = self.rng.randbytes(6).hex()
        for message in peer.registrations(self.envelope()):
            self.say(t.RegisterTopic(peer.name), message)

    def sender(self, peer: Peer, phase: Collecting) -> upload.Sender:
        scope = self.aggregator.scope
        return upload.Sender(peer.name, peer.session, scope.run, scope.incarnation, phase.round)

    # --- a round ------------------------------------------------------------------------------------------

    def begin_round(self) -> Collecting:
        """Registers all peers and waits for an open round."""
        for peer in self.peers.values():
            known = self.state.roster.get(peer.name)
            if known is None or not known.present or known.session != peer.session or peer.name in NOISY:
                self.register(peer)
        self.turn_until(lambda: isinstance(self.state.phase, Collecting), "a round is opened")
        phase = self.state.phase
        assert isinstance(phase, Collecting)
        self._learn(phase)
        return phase

    def _learn(self, phase: Collecting) -> None:
        """Gives every peer an update for the round, once."""
        for peer in self.peers.values():
            if peer.round != phase.round:
                peer.round, peer.update = phase.round, self.updates_of.peer(peer, phase)

    def seeds(self, phase: Collecting) -> list[Seed]:
        """The messages that the noisy edges might send in this round if they were honest."""
        found: list[tuple[t.Topic, m.Message]] = []
        self.grants.clear()
        self.updates.clear()
        for name in NOISY:
            peer = self.peers[name]
            assert peer.update is not None
            sender, topic = self.sender(peer, phase), t.UpdatesTopic(name)
            chunks = chunk_count(peer.update.size, CHUNK)
            corrupted = self.updates_of.peer(peer, phase, partial(corrupt, self.rng))
            self.updates |= {(name, update.digest): update for update in (peer.update, corrupted)}
            found += [(t.RegisterTopic(name), message) for message in peer.registrations(self.envelope())]
            found += [
                (t.PresenceTopic(name), m.ClientPresence(client=name, state="online", session=peer.session)),
                (topic, upload.update_message(sender, 1, peer.update)),
                (topic, upload.offer_message(sender, 1, peer.update, CHUNK)),
                (topic, upload.chunk_message(sender, 1, peer.update, CHUNK, self.rng.randrange(chunks))),
                (topic, upload.update_message(sender, 1, corrupted)),
                (topic, upload.offer_message(sender, 1, corrupted, CHUNK)),
            ]
        facts: dict[str, Any] = {
            **self.envelope(), "client": name, "session": peer.session, "round": phase.round,
        }  # fmt: skip
        closing = self.rng.randbytes(32).hex()  # of a masked sum, which nobody has asked for
        found += [
            (topic, m.TrainingFailed(**facts, detail="no")),
            (topic, m.Agreed(**facts, closing=closing, signature=self.rng.randbytes(64))),
            (topic, m.Opened(**facts, closing=closing, digest=closing, shares=self.rng.randbytes(160))),
            (topic, m.Declined(**facts, closing=closing, reason="another-set", detail="no")),
        ]
        will = m.ClientPresence(client=name, state="offline", session=peer.session)
        found.append((t.PresenceTopic(name), will))
        if self.state.model is not None:
            eve = self.peers["eve"]
            found.append((t.EvaluationsTopic("eve"), m.Evaluation(
                **self.envelope(), client="eve", session=eve.session, version=self.state.model.version,
                digest=self.state.model.digest, split="test", examples=100, loss=0.5, metrics={"accuracy": 0.9},
            )))  # fmt: skip
        live = [Seed(t.build("fl", topic), codec.encode(message)) for topic, message in found]
        bare = [Seed(seed.topic.rpartition("/")[0], seed.payload) for seed in live[::5]]
        return live + bare

    def noise(self, phase: Collecting, seeds: list[Seed]) -> tuple[str, bytes, bool]:
        """The next bad message."""
        rng = self.rng
        if rng.random() < 0.06 and self.grants:
            self._part_asked_for(phase, seeds)
        source = GOLDEN if rng.random() < 0.25 else seeds
        seed = rng.choice(source)
        topic, payload = self.mutator.topic(seed.topic, source), self.mutator.payload(seed, source)
        if rng.random() < 0.05:
            topic = "/".join(rng.choice(HONEST) if level in NOISY else level for level in topic.split("/"))
        return topic, self.harmless(topic, payload), rng.random() < 0.03

    def _part_asked_for(self, phase: Collecting, seeds: list[Seed]) -> None:
        """Replaces a seed by a chunk that was granted."""
        name, digest = asked = self.rng.choice(list(self.grants))
        chunks, update = self.grants[asked], self.updates.get(asked)
        if update is None or not chunks:
            del self.grants[asked]
            return
        part = upload.chunk_message(self.sender(self.peers[name], phase), 1, update, CHUNK, chunks.pop())
        assert part.digest == digest
        seeds[self.rng.randrange(len(seeds))] = Seed(f"fl/updates/{name}", codec.encode(part))

    def finish_round(self) -> None:
        """Ends the round with the honest edges' updates, and checks the next model."""
        phase = self.state.phase
        # First weights may be there already, from noise that is as good as what was asked for.
        assert isinstance(phase, Collecting | Aggregating), phase
        number = phase.round
        while isinstance(phase := self.state.phase, Collecting) and phase.round == number:
            self._learn(phase)
            for name in sorted(phase.awaited, key=HONEST.__contains__):
                if name in HONEST:
                    self.give(self.peers[name], phase, chunked=(self.rounds + len(phase.updates)) % 2 == 1)
                else:  # it may be a name that the noise has made up
                    failed = m.TrainingFailed(
                        **self.envelope(), client=name, session="any", round=number, detail="noise"
                    )
                    self.say(t.UpdatesTopic(name), failed)
            self.turn_until(partial(self._moved_on, phase), f"round {number} goes on")
        self.turn_until(
            lambda: isinstance(self.state.phase, Selecting | Collecting), f"round {number} is committed"
        )
        self.rounds += 1

    def _moved_on(self, phase: Collecting) -> bool:
        return self.state.phase != phase

    def give(self, peer: Peer, phase: Collecting, *, chunked: bool) -> None:
        """Sends a peer's update; raises ``AssertionError`` unless it is accepted."""
        assert peer.update is not None
        sender, topic = self.sender(peer, phase), t.UpdatesTopic(peer.name)
        self.answers.pop(peer.name, None)
        self.grants.pop((peer.name, peer.update.digest), None)
        if chunked:
            self.say(topic, upload.offer_message(sender, 1, peer.update, CHUNK))
            self.turn_until(
                lambda: self._send_granted(peer, sender), f"all chunks of {peer.name} are granted"
            )
        else:
            self.say(topic, upload.update_message(sender, 1, peer.update))
        self.turn_until(lambda: self._is_answered(peer), f"{peer.name} is answered")
        answer = self.answers[peer.name]
        if phase.base is None and isinstance(answer, m.Rejected) and answer.reason == "surplus":
            return  # somebody who had been asked before it has made the first weights after all
        assert isinstance(answer, m.Accepted), answer

    def _is_answered(self, peer: Peer) -> bool:
        return isinstance(self.answers.get(peer.name), m.Accepted | m.Rejected)

    def _send_granted(self, peer: Peer, sender: upload.Sender) -> bool:
        assert peer.update is not None
        for index in self.grants.pop((peer.name, peer.update.digest), ()):
            self.say(t.UpdatesTopic(peer.name), upload.chunk_message(sender, 1, peer.update, CHUNK, index))
        return self._is_answered(peer)
