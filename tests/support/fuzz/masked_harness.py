"""An aggregator of a masked run: honest members, more than unmask a sum, and noise from two that may work with it.

Honest members mask, sign and open with real keys. What the noise says is mutated byte by byte and field by field, or is
well formed and wrong in one value that only the arithmetic of masks can tell: a section of an update, a signature, a
share, a key. In each phase of a round the noise comes before what honest members say.

A member can spoil the sum of a round (docs/privacy.md), so a round whose noisy updates have other words than their
members made may be abandoned, or make any model. Each other round must make the model of its updates, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Agreeing, Collecting, Failed, Selecting, Unmasking
from fl_shared.masking.plan import CLOSING
from fl_shared.masking.run_keys import RunKeys
from fl_shared.masking.shares import shares_manifest
from fl_shared.masking.tallies import TALLIES_MANIFEST
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.kinds.masked import DeclineReason
from fl_shared.tensors.encodings.masked import WIDTHS
from fl_shared.tensors.sections import DELTA, SHARES, TALLIES, ModelSection, model_digest
from fl_shared.transfer import upload
from fl_shared.transfer.publication import chunk_count
from tests.support.fuzz.loop_harness import LoopHarness
from tests.support.fuzz.mutations import Seed, golden
from tests.support.simulated_masked_edge import MANIFEST, MAX_DELTA, MaskedEdge

HONEST: Final = tuple(f"honest-{letter}" for letter in "abcde")
NOISY: Final = ("n1", "n2")
CHUNK: Final = 1024
GOLDEN: Final = golden(NOISY[-1])
KEPT: Final = 40
"""Messages of earlier phases and rounds that are sent again."""
MOST_EXAMPLES: Final = 20
"""So few that integers of 32 bits have room for the sum."""

Noise = tuple[str, str, bytes, bool]
"""The kind of the message that it was made of, the topic, the payload, and whether it was retained."""


class _Member(MaskedEdge):
    def examples(self, number: int) -> int:
        return super().examples(number) % MOST_EXAMPLES + 1


class MaskedHarness(LoopHarness):
    """An aggregator under test. A round is `begin_round`, `send_updates`, `sign` and `open`, with `noise` before each.

    These prove that it still works. The seed decides how many bits masked integers have.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        members = len(HONEST) + len(NOISY)
        settings = Settings(
            clients=members, per_round=members, quorum=len(HONEST), rounds=1_000_000, grace=0.0, deadline=1e8,
            wait=1e8, unmask_wait=1e4, seed=seed, chunk=CHUNK, masked=True, masked_colluders=len(NOISY),
            max_delta=MAX_DELTA, max_buffer=MAX_DELTA, max_examples=MOST_EXAMPLES,
            fold_bits=str(WIDTHS[seed % len(WIDTHS)]),
            durability="process",
        )  # fmt: skip
        super().__init__(directory, settings)
        self.edges = {name: _Member(name, masked=True) for name in (*HONEST, *NOISY)}
        self.rounds = self.abandoned = self.spoilt = 0
        self.kinds: Counter[str] = Counter()
        """How many messages of the noise, which whoever takes them counts, were made of one of each kind."""
        self._admitted: dict[str, m.Admitted] = {}
        self._replies: list[m.Message] = []
        """What members have to say to their admission."""
        self._answers: dict[str, m.Reply] = {}
        self._grants: dict[str, list[tuple[str, int]]] = {}
        """The digests and chunks that were granted, by client."""
        self._selected: tuple[t.Topic, m.Selected] | None = None
        self._asked: dict[str, m.Closing | m.Reveal] = {}
        self._shares: dict[str, bytes] = {}
        """What noisy members would open, if they were honest."""
        self._good: dict[str, upload.FinishedUpdate] = {}
        """The updates of the round, as their members made them."""
        self._true: dict[str, str] = {}
        """The digests of those whose members have the keys that the others know."""
        self._bad: dict[str, list[upload.FinishedUpdate]] = {}
        self._earlier: list[tuple[t.Topic, m.Message]] = []
        self._base = np.zeros(0, np.float64)
        self._expected: np.ndarray[Any, np.dtype[np.float64]] | None = None
        self.start()
        self.begin_round()
        self._first_weights()

    # --- what the aggregator does -------------------------------------------------------------------------

    def hear(self, topic: t.Topic, message: m.Message) -> None:
        """Keeps what members must know."""
        match message:
            case m.Admitted(client=client) if (
                client in self.edges and message.session == self.edges[client].session
            ):
                self._admitted[client] = message
                self._replies += self.edges[client].hear(topic, message, self.envelope())
            case m.Grant(client=client, digest=digest, chunks=chunks):
                self._grants.setdefault(client, []).extend((digest, chunk) for chunk in chunks)
            case m.Reply():
                self._answers[message.client] = message
            case m.Selected():
                self._selected = topic, message
            case m.Closing() | m.Reveal() if isinstance(topic, t.UnmaskTopic):
                self._asked[topic.client] = message
            case _:
                pass

    def see(self, effects: tuple[do.Effect, ...]) -> None:
        """Checks each model whose updates are what their members made."""
        for effect in effects:
            if isinstance(effect, do.Average) and effect.base is not None:
                self._expected = self._expected_of(effect)
            elif isinstance(effect, do.PublishModel):
                newest = self.aggregator._worker.averager.newest.weights
                if self._expected is not None:
                    expected = self._expected.astype(np.float32)
                    assert newest.tobytes() == expected.tobytes(), f"round {effect.round}: another model"
                self._expected, self._base = None, newest.astype(np.float64)

    def _expected_of(self, effect: do.Average) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        scale, total, examples = 2.0**self.settings.scale_bits, np.zeros(MANIFEST.values, np.int64), 0
        for facts in effect.contributors:
            if facts.digest != self._true.get(facts.client):
                assert facts.client in NOISY, f"{facts.client}: not what was accepted"
                return None
            edge = self.edges[facts.client]
            weight = edge.examples(effect.round)
            total += np.rint(edge.delta(effect.round).astype(np.float64) * (weight * scale)).astype(np.int64)
            examples += weight
        return self._base + total.astype(np.float64) / (examples * scale)

    @property
    def over(self) -> bool:
        """Whether the run has failed, after too many spoilt rounds, or takes no more part of any noisy member."""
        excluded = [name for name in NOISY if "shares were wrong" in str(self._unable(name))]
        return isinstance(self.state.phase, Failed) or len(excluded) == len(NOISY)

    def _unable(self, name: str) -> str | None:
        found = self.state.roster.get(name)
        return None if found is None else found.unable

    # --- honest work --------------------------------------------------------------------------------------

    def begin_round(self) -> None:
        """Registers who must be registered, waits for an open round, and gives every member its update."""
        for name in list(self.state.roster):
            known = self.state.roster[name]
            if known.present and (name not in self.edges or known.session != self.edges[name].session):
                gone = m.ClientPresence(client=name, state="offline", session=known.session)
                self.say(t.PresenceTopic(name), gone)
        for name, edge in self.edges.items():
            found = self.state.roster.get(name)
            if found is None or not found.present or found.keys != self._keys_of(name):
                self._register(edge)
        while self._replies:
            message = self._replies.pop()
            assert isinstance(message, m.Registration)
            self.say(t.RegisterTopic(message.client), message)
        self.turn_until(lambda: isinstance(self.state.phase, Collecting), "a round is opened")
        assert self._selected is not None
        topic, selected = self._selected
        cohort = selected.cohort or ()
        assert selected.masked is None or set(HONEST) <= set(cohort), cohort
        self._asked.clear()
        self._shares.clear()
        self._grants.clear()
        for name in self.edges.keys() & set(cohort):
            (message,) = self.edges[name].hear(topic, selected, self.envelope())
            assert isinstance(message, m.Update)
            self._good[name] = _finished(message)
        keys = {} if selected.masked is None else {one.client: one.keys for one in selected.masked.members}
        self._true = {
            name: one.digest for name, one in self._good.items() if keys.get(name) == self._keys_of(name)
        }
        if selected.masked is not None:
            good = {name: self._good[name] for name in NOISY}
            self._bad = {
                name: [self._contradicting(one), *(self._spoilt(one) for _ in range(3))]
                for name, one in good.items()
            }
            for name in self.rng.sample(HONEST, self.rng.randrange(len(HONEST))):
                self._give_good(name)
            if self.rng.random() < 0.6:
                self._end_updates()  # the noise comes too late

    def _keys_of(self, name: str) -> str:
        return self.edges[name].keys.announce(self.aggregator.scope.run, name, None)

    def _register(self, edge: MaskedEdge) -> None:
        edge.starts += 1
        self.say(t.RegisterTopic(edge.name), edge.registration())

    def _first_weights(self) -> None:
        for name, update in self._good.items():
            if isinstance(self.state.phase, Collecting):
                self._give(name, update, chunked=False)
        self.turn_until(lambda: self.state.version == 0, "there are first weights")

    def send_updates(self) -> None:
        """Sends all honest updates, which must be accepted; each noisy member sends one of its own, or fails."""
        phase = self.state.phase
        assert isinstance(phase, Collecting), phase
        for name in HONEST:
            if name in phase.awaited:
                self._give_good(name)
        self._end_updates()
        self.turn_until(lambda: isinstance(self.state.phase, Agreeing), f"round {phase.round} is closed")

    def _give_good(self, name: str) -> None:
        self._give(name, self._good[name], chunked=self.rng.random() < 0.5)
        assert isinstance(self._answers[name], m.Accepted), self._answers[name]

    def _end_updates(self) -> None:
        """Each awaited member that is not honest sends its update, or fails; names that the noise has made up, too."""
        phase = self.state.phase
        for name in sorted(phase.awaited) if isinstance(phase, Collecting) else ():
            if name in self._true and name not in HONEST and self.rng.random() < 0.6:
                self._give(name, self._good[name], chunked=self.rng.random() < 0.5)
            elif name not in HONEST:
                self.say(t.UpdatesTopic(name), m.TrainingFailed(**self._head(name), detail="noise"))

    def _give(self, name: str, update: upload.FinishedUpdate, *, chunked: bool) -> None:
        sender, topic = self._sender(name), t.UpdatesTopic(name)
        self._answers.pop(name, None)
        self._grants.pop(name, None)
        if chunked:
            self.say(topic, upload.offer_message(sender, 1, update, CHUNK))
        else:
            self.say(topic, upload.update_message(sender, 1, update))

        def is_answered() -> bool:
            for digest, chunk in self._grants.pop(name, ()):
                if digest == update.digest:
                    self.say(topic, upload.chunk_message(sender, 1, update, CHUNK, chunk))
            return isinstance(self._answers.get(name), m.Accepted | m.Rejected)

        self.turn_until(is_answered, f"{name} is answered")

    def sign(self) -> None:
        """Has honest members sign the set, until there are enough signatures."""
        phase = self.state.phase
        assert isinstance(phase, Agreeing), phase
        for name in HONEST:
            if isinstance(self.state.phase, Agreeing):
                self._answer(name)
        self.turn_until(lambda: isinstance(self.state.phase, Unmasking), f"round {phase.round} is agreed on")

    def open(self) -> None:
        """Has honest members open their shares. A sum that nobody has spoilt must become a model."""
        phase = self.state.phase
        assert isinstance(phase, Unmasking), phase
        version = self.state.version
        included = phase.collected.updates
        spoilt = any(one.digest != self._true.get(name) for name, one in included.items())
        silent = list(HONEST)

        def is_over() -> bool:
            if isinstance(now := self.state.phase, Unmasking):
                if silent:
                    self._answer(silent.pop())
                elif spoilt:  # others might still open the shares that are missing
                    self.aggregator.clock = max(self.aggregator.clock, now.deadline)
                    self.aggregator._run_once()
            return isinstance(self.state.phase, Selecting | Collecting | Failed)

        self.turn_until(is_over, f"round {phase.round} is over")
        made = self.state.version != version
        assert made or spoilt, f"round {phase.round}: nobody has spoilt it, but it has made no model"
        self.rounds += not spoilt
        self.spoilt += spoilt
        self.abandoned += not made

    def _answer(self, name: str) -> None:
        (message,) = self.edges[name].hear(t.UnmaskTopic(name), self._asked[name], self.envelope())
        assert isinstance(message, m.Agreed | m.Opened), message
        if isinstance(message, m.Opened):
            assert set(message.unopened) <= set(NOISY), message.unopened
        self._earlier = [*self._earlier[-KEPT:], (t.UpdatesTopic(name), message)]
        self.say(t.UpdatesTopic(name), message)

    def _sender(self, name: str) -> upload.Sender:
        head = self._head(name)
        return upload.Sender(name, head["session"], head["run"], head["incarnation"], head["round"])

    def _head(self, name: str) -> dict[str, Any]:
        number = 0 if self._selected is None else self._selected[1].round
        session = self.edges[name].session if name in self.edges else "any"
        return {**self.envelope(), "client": name, "session": session, "round": number}

    # --- noise --------------------------------------------------------------------------------------------

    def seeds(self) -> list[Seed]:
        """What the noisy members might send in this phase, before it and after it."""
        found = [said for name in NOISY for said in self._said(name)]
        self._earlier = [*self._earlier, *found][-KEPT:]
        return [Seed(t.build("fl", topic), codec.encode(message)) for topic, message in found + self._earlier]

    def _said(self, name: str) -> Iterator[tuple[t.Topic, m.Message]]:
        edge, topic, sender = self.edges[name], t.UpdatesTopic(name), self._sender(name)
        yield t.RegisterTopic(name), edge.registration()
        yield t.RegisterTopic(name), edge.registration(self._admitted[name])
        yield t.PresenceTopic(name), m.ClientPresence(client=name, state="online", session=edge.session)
        for update in (self._good[name], *self._bad[name][:2]):
            yield topic, upload.update_message(sender, 1, update)
            yield topic, upload.offer_message(sender, 1, update, CHUNK)
            last = chunk_count(update.size, CHUNK) - 1
            yield topic, upload.chunk_message(sender, 1, update, CHUNK, self.rng.randint(0, last))
        yield topic, m.TrainingFailed(**self._head(name), detail="no")
        for make in (self._agreed, self._opened, self._declined):
            yield topic, make(name)

    def noise(self, seeds: list[Seed]) -> Noise:
        """The next bad message."""
        rng = self.rng
        draw = rng.random()
        if draw < 0.4:
            topic, message = self._aimed(rng.choice(NOISY))
            return message.kind, t.build("fl", topic), codec.encode(message), rng.random() < 0.02
        source = GOLDEN if draw < 0.48 else seeds
        seed = rng.choice(source)
        where, payload = self.mutator.topic(seed.topic, source), self.mutator.payload(seed, source)
        kind = "presence" if seed.format == "bytes" else str(seed.tree.get("kind"))
        return kind, where, self.harmless(where, payload), rng.random() < 0.02

    def _aimed(self, name: str) -> tuple[t.Topic, m.Message]:
        """A well-formed message of a noisy member, with at most one wrong value."""
        topic, sender = t.UpdatesTopic(name), self._sender(name)
        asked = [grant for grant in self._grants.get(name, ()) if self._update_of(name, grant[0])]
        draw = self.rng.randrange(12)
        if asked and draw < 3:
            digest, chunk = asked[-1]
            self._grants[name].remove(asked[-1])
            update = self._update_of(name, digest)
            assert update is not None
            return topic, upload.chunk_message(sender, 1, update, CHUNK, chunk)
        if draw < 1:
            return t.RegisterTopic(name), self._registration(name)
        if draw < 3:
            update = self.rng.choice(self._bad[name])
            if self.rng.random() < 0.5:
                return topic, upload.offer_message(sender, 1, update, CHUNK)
            return topic, upload.update_message(sender, 1, update)
        makers: tuple[Callable[[str], m.Message], ...] = (self._agreed, self._opened, self._declined)
        return topic, makers[min(2, (draw - 3) // 4)](name)

    def _update_of(self, name: str, digest: str) -> upload.FinishedUpdate | None:
        return next((one for one in (self._good[name], *self._bad[name]) if one.digest == digest), None)

    def _registration(self, name: str) -> m.Registration:
        """With keys that are no member's, or are another member's."""
        rng, found = self.rng, self.edges[name].registration(self._admitted[name])
        assert found.keys is not None
        place = rng.randrange(len(found.keys))
        wrong = found.keys[:place] + rng.choice("Aa9_-") + found.keys[place + 1 :]
        other = self._keys_of(rng.choice(HONEST))
        new = RunKeys.generate(rng.randbytes).announce(self.aggregator.scope.run, name, None)
        kits = "".join(rng.choices("Aa9_-", k=310))
        return found.model_copy(update={"keys": rng.choice((wrong, other, new, kits, "A" * 86, None))})

    def _closing(self) -> bytes:
        """The digest of the set that is summed, or of another one."""
        rng, closing = self.rng, next(iter(self._asked.values()), None)
        plan = self.edges[HONEST[0]].plan
        if closing is None or plan is None or rng.random() < 0.2:
            return rng.randbytes(32)
        included = dict(closing.included)
        if rng.random() < 0.1:
            included.pop(rng.choice(list(included)))
        return plan.closing(included)

    def _agreed(self, name: str) -> m.Agreed:
        rng, closing = self.rng, self._closing()
        signer = self.edges[name if rng.random() < 0.7 else rng.choice(HONEST)].keys
        signature = signer.agree.sign(CLOSING + (closing if rng.random() < 0.8 else rng.randbytes(32)))
        if rng.random() < 0.3:
            signature = _flipped(rng, signature)
        return m.Agreed(**self._head(name), closing=closing.hex(), signature=signature)

    def _declined(self, name: str) -> m.Declined:
        reason = self.rng.choice(get_args(DeclineReason))
        detail = self.rng.choice(("", "no", "é" * 200, "\u202e"))
        return m.Declined(**self._head(name), closing=self._closing().hex(), reason=reason, detail=detail)

    def _opened(self, name: str) -> m.Opened:
        """Shares of the right length mostly: then only the commitments tell that they are wrong."""
        rng, asked = self.rng, self._asked.get(name)
        unopened: tuple[str, ...] = ()
        shares = rng.randbytes(16 * rng.randint(1, 21))
        if isinstance(asked, m.Reveal):
            if name not in self._shares:
                (message,) = self.edges[name].hear(t.UnmaskTopic(name), asked, self.envelope())
                self._shares[name] = message.shares if isinstance(message, m.Opened) else shares
            shares = self._shares[name]
            match rng.randrange(6):
                case 0:
                    shares = _flipped(rng, shares)
                case 1:
                    shares = bytes(len(shares))
                case 2:
                    shares = shares[: 16 * rng.randint(1, len(shares) // 16)] + rng.randbytes(
                        16 * rng.randrange(2)
                    )
                case 3:
                    unopened = tuple(rng.sample((*self.edges, "stranger"), rng.randrange(len(self.edges))))
                case _:
                    pass
        digest = hashlib.sha256(shares).hexdigest() if rng.random() < 0.9 else rng.randbytes(32).hex()
        head = self._head(name)
        return m.Opened(
            **head, closing=self._closing().hex(), digest=digest, shares=shares, unopened=unopened
        )

    def _contradicting(self, good: upload.FinishedUpdate) -> upload.FinishedUpdate:
        """An update with commitments to other seeds than all others have committed to."""
        sections = tuple(
            replace(one, data=self.rng.randbytes(len(one.data))) if one.name == SHARES else one
            for one in good.sections
        )
        return replace(good, sections=sections, digest=model_digest(sections))

    def _spoilt(self, good: upload.FinishedUpdate) -> upload.FinishedUpdate:
        """The update with another section or plan, and the digest of what it is then."""
        rng = self.rng
        sections = list(good.sections)
        index = rng.randrange(3)
        one, size = sections[index], len(sections[index].data)
        data = bytes(one.data)
        match rng.randrange(8):
            case 0:
                sections[index] = replace(one, data=rng.randbytes(size))
            case 1 | 2 | 3:
                sections[index] = replace(one, data=_flipped(rng, data))
            case 4:
                sections[index] = replace(
                    one, data=data[: rng.randrange(size)] + rng.randbytes(rng.randrange(9))
                )
            case 5:
                sections[index] = replace(one, encoding=rng.choice(("raw", "f32", "masked32", "masked64")))
            case 6:
                rng.shuffle(sections) if rng.random() < 0.5 else sections.pop(index)
            case _:
                plan = None if rng.random() < 0.3 else rng.randbytes(32).hex()
                return replace(good, plan=plan)
        return replace(good, sections=tuple(sections), digest=model_digest(sections))


def _flipped(rng: Any, data: bytes) -> bytes:
    """Some bytes changed, of the front mostly: there are the salt and the commitments of shares."""
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 1, 4))):
        flipped[rng.randrange(min(len(flipped), rng.choice((16, 250, len(flipped)))))] ^= 1 << rng.randrange(
            8
        )
    return bytes(flipped)


def _finished(message: m.Update) -> upload.FinishedUpdate:
    """A member's update as `upload` sends it."""
    manifests = {DELTA: MANIFEST, TALLIES: TALLIES_MANIFEST}
    sections = tuple(
        ModelSection(
            s.name,
            shares_manifest(len(s.data)) if s.name == SHARES else manifests[s.name],
            bytes(s.data),
            s.encoding,
        )
        for s in message.sections
    )
    return upload.FinishedUpdate(
        message.base, message.digest, message.examples, message.steps, message.seconds, message.metrics, sections,
        plan=message.plan,
    )  # fmt: skip
