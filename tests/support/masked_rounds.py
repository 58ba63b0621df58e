"""Rounds of masked updates, with all their members in one process and no messages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fl_shared.masking.answers import open_shares, sign_closing
from fl_shared.masking.masked_update import Integers, MaskedSections, mask_update
from fl_shared.masking.plan import Member, Plan, threshold_of
from fl_shared.masking.run_keys import RunKeys
from fl_shared.masking.shares import SharesSection
from fl_shared.masking.tallies import TALLIES
from fl_shared.masking.unmasking import Opened
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.masked import MASKED, Words
from fl_shared.tensors.fixed_point import Quantizer
from fl_shared.tensors.manifest import Vector, magnitude


def fixed(label: str) -> bytes:
    """32 bytes that are always the same, for this label."""
    return hashlib.sha256(f"fl-mqtt vector {label}".encode()).digest()


def fixed_random(label: str) -> Callable[[int], bytes]:
    """Consecutive bytes of SHAKE-256 of the label, in place of random ones."""
    taken = 0

    def take(count: int) -> bytes:
        nonlocal taken
        found = hashlib.shake_256(f"fl-mqtt vector {label}".encode()).digest(taken + count)[taken:]
        taken += count
        return found

    return take


def keys_of(client: str) -> RunKeys:
    return RunKeys.from_private(fixed(f"mask {client}"), fixed(f"sign {client}"))


def of_array(integers: Int64s) -> Integers:
    """The integers of an update that are there already."""

    def write(start: int, out: Int64s) -> None:
        out[:] = integers[start : start + len(out)]

    return write


def quantized(delta: Vector, factor: float, out: Int64s) -> None:
    """Writes the integers of all of ``delta``, of the same shape."""
    Quantizer(delta, factor, magnitude(delta))(0, out)


def member_of(client: str, keys: str | None = None) -> Member:
    """A member with the keys of this name, its own by default."""
    public = keys_of(client if keys is None else keys).public
    return Member(client, public.mask, public.agree)


PLAN: Final[dict[str, Any]] = {
    "run": "r",
    "round": 1,
    "task": "digits",
    "partition": {"count": 4, "scheme": "iid", "seed": 7, "holdout": 0.2, "examples": None},
    "base": "b" * 64,
    "manifest": "a" * 64,
    "values": 8,
    "training": {"lr": 0.05},
    "fold": {"scale_bits": 20},
    "correction": None,
    "privacy": None,
    "bits": 64,
}


def plan_with(clients: Collection[str], colluders: int = 1, **others: Any) -> Plan:
    """A plan whose members are ``clients``, with the keys of `keys_of`."""
    threshold = threshold_of(len(clients), colluders)
    members = tuple(member_of(client) for client in sorted(clients))
    return Plan(
        **{
            **PLAN,
            "threshold": threshold,
            "least": threshold,
            "colluders": colluders,
            "members": members,
            **others,
        }
    )


@dataclass(frozen=True)
class Named:
    """What `Closing` and `Reveal` name."""

    round: int
    plan: str
    included: Mapping[str, str]


@dataclass
class MaskedRound:
    """A round, and what its members have sent. Who is not in ``uploads`` is lost."""

    plan: Plan
    random: Callable[[int], bytes] = field(default_factory=lambda: fixed_random("round"))
    uploads: dict[str, MaskedSections] = field(default_factory=dict)

    def upload(self, client: str, integers: Int64s, tallies: Int64s | None = None) -> MaskedSections:
        tallies = np.zeros(TALLIES, np.int64) if tallies is None else tallies
        made = mask_update(self.plan, client, keys_of(client), of_array(integers), tallies, self.random)
        self.uploads[client] = made
        return made

    @property
    def named(self) -> Named:
        bodies = {client: one.body for client, one in self.uploads.items()}
        return Named(self.plan.round, self.plan.digest.hex(), bodies)

    @property
    def sections(self) -> dict[str, SharesSection]:
        return {client: SharesSection.of(self.plan, one.shares) for client, one in self.uploads.items()}

    def signatures(self, clients: Collection[str]) -> dict[str, bytes]:
        return {client: sign_closing(self.plan, client, keys_of(client), self.named) for client in clients}

    def packages(self, holder: str) -> dict[str, bytes]:
        index = self.plan.index(holder)
        return {client: section.package(index) for client, section in self.sections.items()}

    def opened(self, holders: Collection[str]) -> dict[str, Opened]:
        """What ``holders`` open, once all members have signed."""
        signatures = self.signatures(self.plan.clients)
        found = {
            holder: open_shares(
                self.plan, holder, keys_of(holder), self.named, signatures, self.packages(holder)
            )
            for holder in holders
        }
        return {holder: Opened(one.shares, one.unopened) for holder, one in found.items()}

    def sums(self) -> tuple[Words, Words]:
        """The masked sums of the values and of the tallies."""
        delta, tallies = MASKED[self.plan.bits], MASKED[64]
        total: Words = np.zeros(self.plan.values, delta.dtype)
        counts: Words = np.zeros(TALLIES, tallies.dtype)
        for one in self.uploads.values():
            total += delta.unpack(one.delta)
            counts += tallies.unpack(one.tallies)
        return total, counts
