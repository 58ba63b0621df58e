"""What the aggregator joins of the opened shares, and subtracts from the sum of the masked updates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from math import comb
from typing import Final

import numpy as np

from fl_shared.masking.plan import Plan
from fl_shared.masking.shamir import Bytes, join
from fl_shared.masking.shares import SharesSection, commitment
from fl_shared.masking.streams import Mask
from fl_shared.protocol.kinds.masked import SEED

_MOST_TRIES: Final = 2_000
"""Sets of holders that are tried for one client, before its shares are given up."""


class UnmaskFailed(Exception):
    """The sum stays masked; ``client`` is who made it so, null if that cannot be told.

    It takes the shares of ``short`` more members at the least.
    """

    def __init__(self, client: str | None, text: str, short: int = 1) -> None:
        super().__init__(text)
        self.client = client
        self.short = short


@dataclass(frozen=True, slots=True)
class Opened:
    """What a holder has opened, see `OpenedShares`."""

    shares: bytes = field(repr=False)
    unopened: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Unmasking:
    """The ``masks`` to add to the sum, and who gave wrong shares on the way: ``disputes`` of (holder, client).

    In each, either the holder has opened another share than it was sent, or the client has sent it a wrong one.
    """

    masks: Sequence[Mask] = field(repr=False)
    disputes: Sequence[tuple[str, str]]

    def liars(self, colluders: int) -> frozenset[str]:
        """Who lies for certain: ``colluders`` can make up a dispute each with an honest member, and not more."""
        opponents: defaultdict[str, set[str]] = defaultdict(set)
        for holder, client in self.disputes:
            opponents[holder].add(client)
            opponents[client].add(holder)
        return frozenset(
            name for name, others in opponents.items() if name in others or len(others) > colluders
        )


def opened_size(plan: Plan, included: Collection[str]) -> int:
    """The bytes of the shares that each member opens for this set."""
    return SEED * len(included) * (1 + len(plan.members) - len(included))


def disagreements(
    plan: Plan, client: str, section: SharesSection, others: Mapping[str, SharesSection]
) -> tuple[str, ...]:
    """Those of ``others``, by client, whose commitment to the seed that they share with ``client`` is another."""
    own = plan.index(client)
    return tuple(
        name
        for name, other in sorted(others.items())
        if name != client and section.commitment(plan.index(name)) != other.commitment(own)
    )


def find_masks(plan: Plan, sections: Mapping[str, SharesSection], opened: Mapping[str, Opened]) -> Unmasking:
    """What to add to the sum of the updates of ``sections``, by client, so that it has no mask.

    ``opened``: by holder; each of `opened_size` bytes. Shares are joined, and each seed is compared with the commitment
    of its client. If it is another, sets without some of the holders are tried. Raises `UnmaskFailed`.
    """
    included = sorted(sections)
    lost = [index for index, name in enumerate(plan.clients) if name not in sections]
    shape = (len(included), 1 + len(lost), SEED)
    for holder, one in opened.items():
        if len(one.shares) != (size := opened_size(plan, included)):
            raise UnmaskFailed(holder, f"{len(one.shares)} bytes of shares of {holder}, expected {size}")
    shares = {name: np.frombuffer(one.shares, np.uint8).reshape(shape) for name, one in opened.items()}
    masks: list[Mask] = []
    disputes: list[tuple[str, str]] = []
    found = Unmasking(masks, disputes)
    for place, client in enumerate(included):
        own = plan.index(client)
        holders = [name for name in sorted(opened) if client not in opened[name].unopened]
        holders.sort(key=found.liars(plan.colluders).__contains__)  # known liars come last
        secrets = _Secrets(plan, client, [own, *lost], sections[client])
        if len(holders) < plan.threshold:
            culprit = client if len(opened) - len(holders) > plan.colluders else None
            text = f"{len(holders)} members have opened the shares of {client}, expected {plan.threshold}"
            raise UnmaskFailed(culprit, text, plan.threshold - len(holders))
        seeds, wrong = secrets.find({plan.index(name): shares[name][place] for name in holders})
        disputes += [(plan.clients[index], client) for index in wrong]
        # y = q + own mask + Σ of pairs with later members − Σ of pairs with earlier ones
        masks += [(seed, -1 if other >= own else 1) for seed, other in zip(seeds, [own, *lost], strict=True)]
    return found


@dataclass(frozen=True, slots=True)
class _Secrets:
    """The seeds of a client with ``others``, by index, that are to be found."""

    plan: Plan
    client: str
    others: Sequence[int]
    section: SharesSection

    def find(self, shares: Mapping[int, Bytes]) -> tuple[list[bytes], list[int]]:
        """The seeds, and the holders whose shares are not those of them. ``shares``: by the holder's index.

        The fewest possible holders are left out, so each of them gave a wrong share. Raises `UnmaskFailed`.
        """
        threshold, spares = self.plan.threshold, len(shares) - self.plan.threshold
        tried: set[tuple[int, ...]] = set()
        for left_out in islice(_subsets(list(shares), spares), _MOST_TRIES):
            chosen = tuple([holder for holder in shares if holder not in left_out][:threshold])
            if chosen in tried:
                continue
            tried.add(chosen)
            joined = join({holder: shares[holder] for holder in chosen})
            seeds = [seed.tobytes() for seed in joined]
            if self._are_committed(seeds):
                return seeds, list(left_out)
        # Without all colluders among the holders an honest client's shares would have given its seeds.
        colluders = self.plan.colluders
        tries = sum(comb(len(shares), count) for count in range(colluders + 1))
        raise UnmaskFailed(
            self.client if spares >= colluders and tries <= _MOST_TRIES else None,
            f"the shares of {self.client} do not give the seeds that it has committed to",
        )

    def _are_committed(self, seeds: Sequence[bytes]) -> bool:
        return all(
            commitment(self.plan.digest, self.client, self.plan.clients[other], seed)
            == self.section.commitment(other)
            for seed, other in zip(seeds, self.others, strict=True)
        )


def _subsets(holders: Sequence[int], most: int) -> Iterator[tuple[int, ...]]:
    """Sets of at most ``most`` holders to leave out, the smallest first."""
    for count in range(most + 1):
        yield from combinations(holders, count)
