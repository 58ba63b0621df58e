"""The plan of a masked round: what all its members must agree on. Its digest salts every key that they derive."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from fl_shared.masking.run_keys import parse_keys
from fl_shared.protocol import messages as m
from fl_shared.protocol.kinds.masked import MAX_MEMBERS
from fl_shared.tensors.encodings.masked import WIDTHS

_PLAN: Final = b"fl-mqtt plan 1\0"
CLOSING: Final = b"fl-mqtt closing 1\0"
"""The start of what a member signs, and of what is hashed for it."""


def threshold_of(members: int, colluders: int) -> int:
    """The least members that open a sum: ⌊(n + C) / 2⌋ + 1.

    Any two sets of so many have C + 1 members in common, so one that is honest.
    """
    return (members + colluders) // 2 + 1


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the round, with its public keys of the run (32 bytes each): X25519 and Ed25519."""

    client: str
    mask: bytes
    agree: bytes


@dataclass(frozen=True)
class Plan:
    """The settings of one masked round. ``members`` are in ascending order of ``client``.

    ``partition``: as `Admitted` has it, without its index; another holdout gives an edge another weight in the sum.
    ``base`` and ``manifest``: digests, hex; ``values``: of the model. ``training``, ``fold``, ``correction`` and
    ``privacy``: as `Selected` has them. ``threshold``: how many members open the sum; ``least``: how many updates are
    in it at least; ``colluders``: how many members may work together against the others.

    Raises ``ValueError`` for a plan that does not keep what masked sums promise.
    """

    run: str
    round: int
    task: str
    partition: Mapping[str, Any]
    base: str
    manifest: str
    values: int
    training: Mapping[str, Any]
    fold: Mapping[str, Any]
    correction: Mapping[str, Any] | None
    privacy: Mapping[str, Any] | None
    bits: int
    threshold: int
    least: int
    colluders: int
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        count = len(self.members)
        if list(self.clients) != sorted(set(self.clients)):
            raise ValueError("members: expected unique clients in ascending order")
        keys = [key for member in self.members for key in (member.mask, member.agree)]
        if len(set(keys)) < len(keys):
            raise ValueError("members: two have the same key, expected one of their own for each")
        if self.colluders < 0 or not self.colluders + 2 <= count <= MAX_MEMBERS:
            raise ValueError(
                f"members: {count} with {self.colluders} colluders, "
                f"expected {max(0, self.colluders) + 2} to {MAX_MEMBERS} members"
            )
        if self.threshold != (expected := threshold_of(count, self.colluders)):
            raise ValueError(
                f"threshold: {self.threshold}, expected {expected} "
                f"for {count} members and {self.colluders} colluders"
            )
        if not self.threshold <= self.least <= count:
            raise ValueError(f"least: {self.least}, expected {self.threshold} to {count}")
        if self.bits not in WIDTHS:
            raise ValueError(f"bits: {self.bits}, expected one of {', '.join(map(str, WIDTHS))}")

    @cached_property
    def clients(self) -> tuple[str, ...]:
        """The members by name, ascending."""
        return tuple(member.client for member in self.members)

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {client: index for index, client in enumerate(self.clients)}

    def index(self, client: str) -> int:
        """The place of a member, from 0. Raises ``KeyError`` for any other client."""
        return self._places[client]

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all of the plan, 32 bytes."""
        content = [
            self.run,
            self.round,
            self.task,
            self.partition,
            self.base,
            self.manifest,
            self.values,
            self.training,
            self.correction,
            self.fold,
            self.privacy,
            self.bits,
            self.threshold,
            self.least,
            self.colluders,
            [[member.client, member.mask.hex(), member.agree.hex()] for member in self.members],
        ]
        return hashlib.sha256(_PLAN + _canonical(content)).digest()

    def closing(self, included: Mapping[str, str]) -> bytes:
        """See `closing_digest`."""
        return closing_digest(self.digest, included)


def closing_digest(plan: bytes, included: Mapping[str, str]) -> bytes:
    """The digest, 32 bytes, of the set of updates that is to be summed; ``included``: client → body, hex.

    ``plan``: the digest of the round's plan.
    """
    text = _canonical([[client, body] for client, body in sorted(included.items())])
    return hashlib.sha256(CLOSING + plan + text).digest()


def plan_of(selected: m.Selected, partition: m.Partition, manifest: str, values: int) -> Plan:
    """The plan of a masked round; ``manifest``: the digest of the base's, which has ``values`` values.

    ``partition``: that of any member, since those differ in their index only. Raises ``ValueError`` for a round that
    keeps less than masked sums promise, or that is not masked.
    """
    masked, base, correction = selected.masked, selected.base, selected.correction
    if masked is None or base is None:
        raise ValueError(f"round {selected.round} is not masked")
    members = []
    for member in masked.members:
        keys = parse_keys(member.keys)
        members.append(Member(member.client, keys.mask, keys.agree))
    return Plan(
        run=selected.run,
        round=selected.round,
        task=selected.task,
        partition=partition.model_dump(exclude={"index"}),
        base=base.digest,
        manifest=manifest,
        values=values,
        training=selected.training.model_dump(),
        correction=None if correction is None else correction.model_dump(),
        fold=selected.fold.model_dump(),
        privacy=None if selected.privacy is None else selected.privacy.model_dump(),
        bits=masked.bits,
        threshold=masked.threshold,
        least=masked.least,
        colluders=masked.colluders,
        members=tuple(members),
    )


def _canonical(value: Any) -> bytes:
    return json.dumps(_spelt(value), separators=(",", ":"), sort_keys=True, ensure_ascii=True).encode()


def _spelt(value: Any) -> Any:
    """``value`` with each float as the hexadecimal digits of its IEEE double: languages write decimals differently."""
    match value:
        case float():
            return struct.pack(">d", value).hex()
        case Mapping():
            return {key: _spelt(one) for key, one in value.items()}
        case list() | tuple():
            return [_spelt(one) for one in value]
        case _:
            return value
