"""A clip that follows the median of the updates' norms, of which only a noisy share is known.

Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping", arXiv:1905.03871, algorithm 1, with the
geometric update.
"""

from __future__ import annotations

import math
from typing import Final

RATE: Final = 0.2
"""How fast the clip follows."""
QUANTILE: Final = 0.5
"""The share of updates that should be within the clip."""
ROOM: Final = 256.0
"""How many times greater or smaller than the first clip a later one may be.

The grid of the sum stays as it is in all rounds. The noise has 2^23 to 2^24 of its units with the first clip, or fewer
if the sum needs the bits; so it has 2^8 to 2^32 with any other one.
"""


def next_clip(clip: float, first: float, within: float, values: int, scale_bits: int) -> float:
    """Returns the clip of the next release: clip × exp(−0.2 (within − ½)). ``within``: the noisy share of updates.

    It is at least so long that the rounding of ``values`` values to ``scale_bits`` places takes no more than half.
    """
    power = min(
        -RATE * (within - QUANTILE), math.log(ROOM**2)
    )  # it is as much as can be: exp may be too large a float
    moved = clip * math.exp(power)
    return min(max(moved, first / ROOM, math.sqrt(values) * 2.0**-scale_bits), first * ROOM)
