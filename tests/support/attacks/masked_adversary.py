"""All that an aggregator and the members who work with it have of masked rounds, and what they can compute from it.

The adversary knows the masked updates of honest members, the private keys of its colluders, and whatever shares it was
given. It joins shares, checks each seed that it has against all commitments, and solves for updates: unknown are the
updates and the masks whose seeds it does not have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fl_shared.masking.masked_update import MaskedSections
from fl_shared.masking.plan import Plan
from fl_shared.masking.run_keys import RunKeys
from fl_shared.masking.shamir import join
from fl_shared.masking.shares import (
    SALT,
    SharesSection,
    commitment,
    mask_seed,
    open_package,
    pair_secret,
    share_key,
)
from fl_shared.masking.streams import DELTA_STREAM, add_masks
from fl_shared.protocol.kinds.masked import SEED
from fl_shared.tensors.encodings.masked import MASKED, Words

Mask = tuple[bytes | str, str, str]
"""A mask, by what its seed depends on: the plan and the names of a pair; or the body of an update, and its sender."""
_NOTHING = 1e-9


@dataclass(frozen=True)
class Upload:
    """A masked update of an honest member; all that it masks in the same training is the same ``update``."""

    plan: Plan
    client: str
    made: MaskedSections
    update: str

    @property
    def shares(self) -> SharesSection:
        return SharesSection.of(self.plan, self.made.shares)

    def mask(self, other: int) -> Mask:
        """The one with the member at ``other``; its own in its own place."""
        name = self.plan.clients[other]
        if name == self.client:
            return self.made.body, name, name
        first, second = sorted((self.client, name))
        return self.plan.digest, first, second


@dataclass
class Adversary:
    """``keys``: the private keys of its colluders, by name. ``offered``: seeds that it has, of whatever mask."""

    keys: Mapping[str, RunKeys]
    uploads: list[Upload] = field(default_factory=list)
    offered: set[bytes] = field(default_factory=set)
    shares: defaultdict[tuple[str, int], dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    """Shares by holder, of the seed of the update with this body with the member at this index."""

    def sees(self, plan: Plan, client: str, made: MaskedSections, update: str = "") -> None:
        """Takes an update of an honest member, with what it tells the colluders."""
        upload = Upload(plan, client, made, update or client)
        self.uploads.append(upload)
        for holder, keys in self.keys.items():
            if holder not in plan.clients:
                continue
            pair = pair_secret(plan.digest, holder, keys.mask, plan.members[plan.index(client)])
            self.offered.add(mask_seed(pair))
            index = plan.index(holder)
            package = upload.shares.package(index)
            key = share_key(pair, package[:SALT], client, holder)
            content = open_package(key, plan.digest, bytes.fromhex(made.body), package[SALT:])
            if content is not None:
                for other in range(len(plan.members)):
                    self.shares[made.body, other][index] = content[SEED * other : SEED * (other + 1)]

    def is_told(self, plan: Plan, holder: str, included: Mapping[str, str], shares: bytes) -> None:
        """Takes what a member has opened of a set."""
        lost = [index for index, name in enumerate(plan.clients) if name not in included]
        rows = iter(np.frombuffer(shares, np.uint8).reshape(-1, SEED))
        for client, body in sorted(included.items()):
            for other in (plan.index(client), *lost):
                self.shares[body, other][plan.index(holder)] = next(rows).tobytes()

    def seeds(self) -> dict[Mask, bytes]:
        """All that it has found, each confirmed by a commitment."""
        seeds = set(self.offered)
        thresholds = {upload.made.body: upload.plan.threshold for upload in self.uploads}
        for (body, _), held in self.shares.items():
            threshold = thresholds.get(body)
            if threshold is not None and len(held) >= threshold:
                chosen = {
                    holder: np.frombuffer(held[holder], np.uint8) for holder in sorted(held)[:threshold]
                }
                seeds.add(join(chosen).tobytes())
        found: dict[Mask, bytes] = {}
        for upload in self.uploads:
            for other, name in enumerate(upload.plan.clients):
                wanted = upload.shares.commitment(other)
                for seed in seeds:
                    if commitment(upload.plan.digest, upload.client, name, seed) == wanted:
                        found[upload.mask(other)] = seed
        return found

    def sums(self) -> int:
        """How many independent sums of updates it has, of one or of several."""
        updates, masks = self._equations(self.seeds())
        return _rank(np.hstack([updates, masks])) - _rank(masks)

    def update(self, name: str) -> Words | None:
        """The values of an update, modulo 2^bits, if it can compute them."""
        seeds = self.seeds()
        updates, masks = self._equations(seeds)
        names = self._updates()
        if name not in names:
            return None
        wanted = np.zeros(updates.shape[1] + masks.shape[1])
        wanted[names.index(name)] = 1
        equations = np.hstack([updates, masks]).T
        weights = np.linalg.lstsq(equations, wanted, rcond=None)[0]
        if np.abs(equations @ weights - wanted).max() > _NOTHING:
            return None
        plan = self.uploads[0].plan
        total: Words = np.zeros(plan.values, MASKED[plan.bits].dtype)
        for upload, weight in zip(self.uploads, weights, strict=True):
            assert abs(weight - round(weight)) < _NOTHING
            total += np.array(round(weight), np.int64).astype(total.dtype) * _bared(upload, seeds)
        return total

    def _updates(self) -> list[str]:
        return sorted({upload.update for upload in self.uploads})

    def _equations(self, seeds: Mapping[Mask, bytes]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """One row an upload: how often each update is in it, and each mask that is unknown."""
        names = self._updates()
        unknown = sorted(_masks(self.uploads) - seeds.keys(), key=repr)
        updates = np.zeros((len(self.uploads), len(names)))
        masks = np.zeros((len(self.uploads), len(unknown)))
        for row, upload in enumerate(self.uploads):
            updates[row, names.index(upload.update)] = 1
            for other in range(len(upload.plan.members)):
                if (mask := upload.mask(other)) not in seeds:
                    masks[row, unknown.index(mask)] = _sign(upload, other)
        return updates, masks


def _masks(uploads: Iterable[Upload]) -> set[Mask]:
    return {upload.mask(other) for upload in uploads for other in range(len(upload.plan.members))}


def _sign(upload: Upload, other: int) -> int:
    return 1 if other >= upload.plan.index(upload.client) else -1


def _bared(upload: Upload, seeds: Mapping[Mask, bytes]) -> Words:
    """An update without the masks whose seeds are known."""
    words: Words = MASKED[upload.plan.bits].unpack(upload.made.delta).copy()
    masks = [
        (seeds[mask], -_sign(upload, other))
        for other in range(len(upload.plan.members))
        if (mask := upload.mask(other)) in seeds
    ]
    add_masks(words, masks, DELTA_STREAM)
    return words


def _rank(matrix: NDArray[np.float64]) -> int:
    return int(np.linalg.matrix_rank(matrix)) if matrix.size else 0
