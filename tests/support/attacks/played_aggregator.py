"""A masked run of honest edges with kits and of colluders, by whom its aggregator is played; without messages.

Honest edges mask, sign and open with the program's own code and files, and are started anew for each answer.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_edge.session.masking import Trust, UnacceptablePlan
from fl_edge.session.policy import RequiredMasking
from fl_edge.session.work import Shares, Signature
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_edge.training.executor import TrainedUpdate
from fl_edge.workers.masked_result import MaskedRound
from fl_shared.masking.masked_update import MaskedSections, mask_update
from fl_shared.masking.plan import CLOSING, threshold_of
from fl_shared.masking.run_keys import MemberCredential, RunKeys
from fl_shared.protocol import messages as m
from fl_shared.security.vouchers import member_bytes
from fl_shared.system.shared_memory import MemoryPool
from fl_shared.tensors.encodings.masked import Words
from tests.support.attacks.masked_adversary import Adversary
from tests.support.masked_edges import RUN, MaskedEdges, reason_of, text_of
from tests.support.masked_rounds import fixed, of_array, quantized

CLIENTS: Final = tuple("abcdefghi")
"""The usual cohort; its last ones collude."""
OTHERS: Final = ("j", "k", "l")
"""Honest edges of the run that are not in it."""
COLLUDERS: Final = 2
THRESHOLD: Final = 6
"""Two sets of so many have three members in common: one more than collude, so the least that suffices."""
VICTIM: Final = "a"
UNTIL: Final = 2**32
ENROLMENT: Final = Ed25519PrivateKey.from_private_bytes(fixed("enrolment"))


def credential(client: str, until: int = UNTIL, by: Ed25519PrivateKey = ENROLMENT) -> MemberCredential:
    """What the kit of a client has; ``by``: the key that vouches."""
    private = fixed(f"member {client}")
    member = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return MemberCredential(private, until, by.sign(member_bytes(client, member, until)))


@dataclass
class PlayedAggregator:
    """The last ``bad`` of `CLIENTS` collude. ``sections``: of all masked updates, by body."""

    directory: Path
    bad: int = COLLUDERS
    sections: dict[str, MaskedSections] = field(default_factory=dict)
    shown: dict[str, m.Selected] = field(default_factory=dict)
    """The selection that an edge has seen last."""

    def __post_init__(self) -> None:
        trust = Trust(ENROLMENT.public_key().public_bytes_raw(), RequiredMasking(5, COLLUDERS))
        kits = {client: credential(client) for client in (*CLIENTS, *OTHERS)}
        self.edges = MaskedEdges(self.directory, (*CLIENTS, *OTHERS), kits, trust)
        self.honest = CLIENTS[: len(CLIENTS) - self.bad]
        self.colluders = CLIENTS[len(CLIENTS) - self.bad :]
        self.adversary = Adversary({client: self.private(client) for client in self.colluders})

    def private(self, client: str) -> RunKeys:
        keys = RunKeysFile(self.directory / client, client).keys(RUN)
        assert keys is not None
        return keys

    # --- what an aggregator does --------------------------------------------------------------------------

    def selected(
        self,
        number: int = 1,
        cohort: Collection[str] = CLIENTS,
        colluders: int = COLLUDERS,
        keys: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> m.Selected:
        """The selection of a cohort. ``keys``: of members, in place of those that they have announced."""
        found = self.edges.selected(number, **changes)
        known = {**self.edges.keys, **(keys or {})}
        threshold = threshold_of(len(cohort), colluders)
        masked = m.Masking(
            bits=64,
            threshold=threshold,
            least=threshold,
            colluders=colluders,
            members=tuple(m.Member(client=name, keys=known[name]) for name in sorted(cohort)),
        )
        return found.model_copy(update={"masked": masked})

    def train(
        self, selected: m.Selected, clients: Collection[str] = CLIENTS, update: str = ""
    ) -> dict[str, str]:
        """Has edges mask their updates for this selection; returns the bodies of those who do.

        ``update``: what the edges add to the name of their update, if it is not that of the round's usual training.
        """
        return {
            client: made.body
            for client in clients
            if (made := self._masked(selected, client, update)) is not None
        }

    def _masked(self, selected: m.Selected, client: str, update: str) -> MaskedSections | None:
        self.shown[client] = selected
        if client in self.colluders:  # who mask for any plan
            plan, nothing = self.edges.plan(selected), np.zeros(8, np.int64)
            made = mask_update(
                plan, client, self.private(client), of_array(nothing), nothing, secrets.token_bytes
            )
            self.sections[made.body] = made
            return made
        manifest, partition = self.edges.manifest, self.edges.partition(client)
        try:
            masking = self.edges.member(client).masking(selected, partition, manifest)
        except UnacceptablePlan:
            return None
        assert masking is not None
        trained = TrainedUpdate(trained_delta(client + update), 3, 1, 0.5, m.UpdateMetrics())
        masked = MaskedRound(masking, client, partition, manifest)
        outcome = masked.outcome(trained, "accuracy", MemoryPool(), lambda: False)
        assert outcome.masked is not None
        made = MaskedSections(
            outcome.delta.view, memoryview(outcome.masked.tallies), outcome.masked.shares, outcome.masked.body,
            outcome.digest,
        )  # fmt: skip
        self.sections[made.body] = made
        self.adversary.sees(self.edges.plan(selected, client), client, made, client + update)
        return made

    def sign(
        self, selected: m.Selected, bodies: Mapping[str, str], of: Collection[str] = CLIENTS, **changes: Any
    ) -> Answers:
        """Asks members to sign a set; colluders sign anything. ``changes``: of the message."""
        closing = self.edges.closing(selected, bodies, **changes)
        found = Answers()
        for client in of:
            if client in self.colluders:
                digest = self.edges.plan(selected).closing(bodies)
                found.given[client] = self.private(client).agree.sign(CLOSING + digest)
                continue
            answer = self.edges.answer(client, self.shown.get(client, selected), closing)
            if isinstance(answer, Signature):
                found.given[client] = answer.signature
            else:
                found.reasons[client] = reason_of(answer)
        return found

    def open(
        self,
        selected: m.Selected,
        bodies: Mapping[str, str],
        signatures: Mapping[str, bytes],
        of: Collection[str] | None = None,
        packages: Mapping[str, str] | None = None,
    ) -> Answers:
        """Asks honest members to open a set; what they open is the adversary's. ``packages``: in place of theirs."""
        found = Answers()
        for client in self.honest if of is None else of:
            shares = {name: self.sections[body].shares for name, body in bodies.items()}
            reveal = self.edges.reveal(selected, client, bodies, signatures, shares)
            if packages is not None:
                reveal = reveal.model_copy(update={"packages": packages})
            answer = self.edges.answer(client, self.shown.get(client, selected), reveal)
            if isinstance(answer, Shares):
                found.given[client] = answer.shares
                self.adversary.is_told(self.edges.plan(selected), client, bodies, answer.shares)
            else:
                found.reasons[client] = reason_of(answer)
        return found

    def unmask(self, selected: m.Selected, bodies: Mapping[str, str], of: Collection[str] = CLIENTS) -> None:
        """Has a set signed by ``of``, and opened by those of them who are honest, as far as they do that."""
        signed = self.sign(selected, bodies, of)
        self.open(selected, bodies, signed.given, [client for client in of if client not in self.colluders])

    # --- what it learns -----------------------------------------------------------------------------------

    def learnt(self) -> set[str]:
        """The updates of honest members that the adversary can compute. Those that it computes are compared."""
        found = set()
        for name in {upload.update for upload in self.adversary.uploads}:
            values = self.adversary.update(name)
            if values is not None:
                assert values.tolist() == words_of(name).tolist(), (
                    "the adversary is wrong, and so is this test"
                )
                found.add(name)
        return found


def announced(
    client: str, mask: bytes, agree: bytes, kit: MemberCredential | None = None, run: str = RUN
) -> str:
    """The string ``keys`` of a member, with public keys of its choice. ``kit``: by default its own."""
    kit = credential(client) if kit is None else kit
    member = Ed25519PrivateKey.from_private_bytes(kit.private)
    proof = member.sign(b"".join((b"fl-mqtt run keys 1\0", f"{run}\0{client}\0".encode(), mask, agree)))
    terms = member.public_key().public_bytes_raw() + kit.until.to_bytes(8, "big") + kit.voucher
    return text_of(mask + agree + terms + proof)


@dataclass
class Answers:
    """What members have given, and why the others have not."""

    given: dict[str, bytes] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def trained_delta(update: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """What an edge has trained: always the same for this name."""
    seed = int.from_bytes(hashlib.sha256(update.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(0.0, 0.1, 8).astype(np.float32)


def words_of(update: str) -> Words:
    integers = np.empty(8, np.int64)
    quantized(trained_delta(update), 3 * 2.0**32, integers)
    return integers.view(np.uint64)
