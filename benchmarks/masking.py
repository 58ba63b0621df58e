"""Measures the arithmetic of masked updates on one core: no broker, no rounds (those are in `masked.py`).

    python benchmarks/masking.py --edges 20 --params 10000000 --bits 64 --lost 0.3

``lost``: which part of the edges sends no update. Of an edge: ``mask`` makes integers of its values, masks and hashes
them, and shares the seeds, ``open`` checks the signatures and opens its shares. Of the aggregator: ``add`` adds up one
update, ``seeds`` joins the shares, ``unmask`` subtracts the ``streams`` of all masks. Seconds are of the processor.
``bytes_ratio``: a masked update to a plain one, in bytes. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from fl_aggregator.aggregation.masked_sum import MaskedSum
from fl_shared.masking.answers import OpenedShares, open_shares, sign_closing
from fl_shared.masking.masked_update import Integers, MaskedSections, mask_update
from fl_shared.masking.plan import Member, Plan, threshold_of
from fl_shared.masking.run_keys import RunKeys
from fl_shared.masking.shares import SharesSection
from fl_shared.masking.streams import DELTA_STREAM, add_masks
from fl_shared.masking.tallies import TALLIES
from fl_shared.masking.unmasking import Opened, find_masks, opened_size
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.masked import MASKED, WIDTHS
from fl_shared.tensors.fixed_point import Quantizer
from fl_shared.tensors.manifest import magnitude

T = TypeVar("T")
SMALL = 8
"""Values of the updates whose shares are joined: their length says nothing about that of the updates."""


def measured(action: Callable[[], T]) -> tuple[float, T]:
    """The seconds of the processor that a call takes, and its result."""
    begun = time.process_time()
    result = action()
    return round(time.process_time() - begun, 4), result


@dataclass(frozen=True)
class Closing:
    """The set of a round that is summed."""

    round: int
    plan: str
    included: dict[str, str]


def plan_with(keys: dict[str, RunKeys], values: int, bits: int) -> Plan:
    """A plan of a tenth of colluders."""
    colluders = max(1, len(keys) // 10)
    threshold = threshold_of(len(keys), colluders)
    members = tuple(Member(name, one.public.mask, one.public.agree) for name, one in sorted(keys.items()))
    return Plan(
        run="r", round=1, task="t", partition={}, base="b" * 64, manifest="a" * 64, values=values, training={}, fold={},
        correction=None, privacy=None, bits=bits, threshold=threshold, least=threshold, colluders=colluders,
        members=members,
    )  # fmt: skip


def masked(plan: Plan, name: str, keys: dict[str, RunKeys], integers: Integers) -> MaskedSections:
    """The masked update of an edge."""
    return mask_update(plan, name, keys[name], integers, np.zeros(TALLIES, np.int64), os.urandom)


def main() -> None:
    """Measures one size and prints the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edges", type=int, default=20)
    parser.add_argument("--params", type=int, default=431_080)
    parser.add_argument("--bits", type=int, choices=WIDTHS, default=64)
    parser.add_argument("--lost", type=float, default=0.3)
    arguments = parser.parse_args()
    count, values, bits = arguments.edges, arguments.params, arguments.bits
    keys = {f"e{index:03}": RunKeys.generate(os.urandom) for index in range(count)}
    plan = plan_with(keys, values, bits)
    small = replace(plan, values=SMALL)
    here = plan.clients[int(arguments.lost * count) :]

    delta = np.random.default_rng(1).normal(0, 0.01, values).astype(np.float32)
    quantizer = Quantizer(delta, 100 * 2.0**20, magnitude(delta))
    of_mask, update = measured(lambda: masked(plan, here[0], keys, quantizer))
    total = MaskedSum(np.zeros(values, np.int64), bits)
    of_add, _ = measured(lambda: total.add(update.delta, update.tallies))

    updates = {name: masked(small, name, keys, quantizer) for name in here}
    sections = {name: SharesSection.of(small, one.shares) for name, one in updates.items()}
    closing = Closing(1, small.digest.hex(), {name: one.body for name, one in updates.items()})
    signatures = {name: sign_closing(small, name, keys[name], closing) for name in here[: small.threshold]}

    def opened(holder: str) -> OpenedShares:
        packages = {name: one.package(small.index(holder)) for name, one in sections.items()}
        return open_shares(small, holder, keys[holder], closing, signatures, packages)

    of_open, _ = measured(lambda: opened(here[0]))
    shares = {name: Opened(opened(name).shares) for name in here[: small.threshold]}
    of_seeds, found = measured(lambda: find_masks(small, sections, shares))
    words = MASKED[bits].unpack(update.delta).copy()
    of_unmask, _ = measured(lambda: add_masks(words, found.masks, DELTA_STREAM))
    size = len(update.delta) + len(update.tallies) + len(update.shares)
    line = {
        "benchmark": "masking", "edges": count, "params": values, "bits": bits, "lost": arguments.lost,
        "threshold": plan.threshold, "mask": of_mask, "open": of_open, "add": of_add,
        "seeds": of_seeds, "unmask": of_unmask, "streams": len(found.masks), "bytes": size,
        "bytes_shares": len(update.shares), "bytes_ratio": round(size / FLOAT32.size(values), 4),
        "bytes_opened": opened_size(plan, here),
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
