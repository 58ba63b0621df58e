"""Updates of bounded length, on the grid of the exact sum: whole multiples of 2^−scale_bits.

The bound holds for the integers, with their rounding. So the sensitivity of a sum of integers is exactly the clip: no
float is left that could break it (Mironov 2012; Casacuberta and others 2022, arXiv:2207.10635).

The L2 norm of the integers q of an update δ of d values is at most S × 2^scale_bits. With f the factor,
‖q‖ ≤ (1 + e) f ‖δ‖ 2^scale_bits + √d / 2: each value is rounded by at most ½, and e is what float64 adds, less than
2^-43 with the norm's 2^-44 (`norms`). f ‖δ‖ ≤ S − √d 2^(−scale_bits − 1) − 1e-9 S, and the last term is more than e S.
"""

from __future__ import annotations

import math
from typing import Final

from fl_shared.tensors.fixed_point import Quantizer
from fl_shared.tensors.manifest import Vector
from fl_shared.tensors.norms import norm

_SLACK: Final = 1e-9
_MAX_BITS: Final = 62
"""Of a clip on the grid: integers of 64 bits hold it."""
_NOISE_BITS: Final = 28
"""Of the noise's standard deviation on the grid at most, so that float64 is much finer (`gaussian_noise` says why)."""
_MOST_NOISE_BITS: Final = 32
"""The same, once the clip has grown as much as it may."""
_MOST_PLACES: Final = 62
"""As many as a message may say (protocol, 5.10)."""
MIN_DEVIATION: Final = 2.0**8
"""Units of the grid that the noise's standard deviation has at least, so that it is finer than what it hides."""
FARTHEST: Final = 12
"""Standard deviations that noise keeps within, but for 1 of 10^32 values."""


def clip_factor(length: float, values: int, clip: float, scale_bits: int) -> float:
    """The factor, at most 1, that makes an update of L2 norm ``length`` no longer than ``clip`` on the grid.

    min(1, (clip − √values × 2^(−scale_bits − 1) − 1e-9 clip) / length). As its weight in `ExactSum.add`, it makes the
    integers of `clipped`. ``length``: as `norm` gives it. Raises ``ValueError`` for a length that is not finite,
    or a grid that is too coarse for so many values.
    """
    if not 0 <= length < math.inf:
        raise ValueError(f"length: {length}, expected a finite number")
    if not (clip > 0 and math.log2(clip) + scale_bits <= _MAX_BITS):
        raise ValueError(
            f"clip: {clip} with {scale_bits} binary places, expected 0 to 2^{_MAX_BITS} units of the grid"
        )
    longest = clip - math.sqrt(values) * 2.0 ** (-scale_bits - 1) - _SLACK * clip
    if longest <= 0:
        raise ValueError(
            f"clip: {clip} is less than the rounding of {values} values to {scale_bits} binary places; "
            "expected more of either"
        )
    return min(1.0, longest / length) if length else 1.0


def clipped(delta: Vector, clip: float, scale_bits: int) -> Quantizer:
    """What makes the integers of ``delta``, clipped: their L2 norm is at most ``clip`` × 2^``scale_bits``.

    Raises ``ValueError`` as `clip_factor` does, so also if a value is not finite.
    """
    length = norm(delta, [(0, len(delta))])
    factor = clip_factor(length, len(delta), clip, scale_bits)
    return Quantizer(delta, factor * 2.0**scale_bits, length)


def private_scale_bits(
    clip: float, noise: float, slots: int, bits: int = 64, part: float = 1.0, room: float = 1.0
) -> int:
    """The binary places of a private sum: of ``slots`` clipped updates and noise of deviation ``noise`` × ``clip``.

    The least of bits − 2 − ⌈log2(room × clip × (slots + 12 noise))⌉, 28 − ⌈log2(noise × clip)⌉, and
    32 − ⌈log2(room × noise × clip)⌉, and 62: the sum is below 2^(bits − 1) in magnitude, and the noise is coarser than
    float64's own grain. ``part``: the smallest deviation that is added at once, relative to that of all noise together.
    ``room``: the clip may become so many times greater or smaller. Raises ``ValueError`` if the smallest deviation
    could be less than 2^8 units of the grid.
    """
    if not (0 < clip < math.inf and 0 < noise < math.inf and slots > 0):
        raise ValueError(f"clip {clip}, noise {noise}, slots {slots}: expected numbers above 0")
    of_sum = bits - 2 - math.ceil(math.log2(room * clip * (slots + FARTHEST * noise)))
    of_noise = _NOISE_BITS - math.ceil(math.log2(noise * clip))
    of_most_noise = _MOST_NOISE_BITS - math.ceil(math.log2(room * noise * clip))
    places = min(of_sum, of_noise, of_most_noise, _MOST_PLACES)
    if (deviation := part * noise * clip / room * 2.0**places) < MIN_DEVIATION:
        raise ValueError(
            f"bits: {bits} leave the noise a standard deviation of {deviation:.2g} units of the grid "
            f"with noise {noise} and {slots} slots, expected at least {MIN_DEVIATION:.0f}: "
            "more bits, more noise, or fewer slots"
        )
    return places
