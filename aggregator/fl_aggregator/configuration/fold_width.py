"""The bits of the integers in which a round is added up: they decide how long a masked update is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from fl_aggregator.configuration.privacy import has_room_for_noise
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.masked import MASKED, WIDTHS, Bits
from fl_shared.tensors.fixed_point import LEAST_PLACES, scale_bits_of

if TYPE_CHECKING:
    from fl_aggregator.configuration.settings import Settings

FoldBits = Literal["auto", "32", "40", "48", "64"]
_WIDEST: Final = WIDTHS[-1]

_EXAMPLES: Final = (100_000, 10_000, 1_000, 100)
_DELTAS: Final = (100.0, 10.0, 1.0)
"""Caps that are proposed, the loosest first."""


def width_of(settings: Settings) -> Bits:
    """Returns the bits that the settings ask for.

    ``auto`` is 64 in plain runs, which fold in int64 in any case; in masked ones it is the smallest width that leaves
    `LEAST_PLACES` places, or 64. In a private one it is the smallest that has room for the noise.
    """
    if settings.fold_bits != "auto":
        return next(bits for bits in WIDTHS if str(bits) == settings.fold_bits)
    if settings.privacy is not None and settings.masked:
        return next((bits for bits in WIDTHS if has_room_for_noise(settings, bits)), _WIDEST)
    caps = settings.max_examples, settings.max_delta, settings.slots
    fit = (bits for bits in WIDTHS if scale_bits_of(*caps, bits) >= LEAST_PLACES)
    return next(fit, _WIDEST) if settings.masked else _WIDEST


def length_of(bits: int) -> float:
    """Returns how long a masked update is, in lengths of a plain one."""
    return MASKED[bits].sizes(1)[0] / FLOAT32.size(1)


def shorter_text(settings: Settings) -> str | None:
    """Says which caps would make updates shorter; null if they are as short as can be, or not masked.

    They are the loosest of some round numbers, none above the caps that are set, for the next smaller width that can
    be reached.
    """
    # Of a private run no cap decides it, and a survey has those that it needs.
    if not settings.masked or settings.dp is not None or settings.survey is not None:
        return None
    width = width_of(settings)
    for bits in reversed([bits for bits in WIDTHS if bits < width]):
        fit = [
            (examples * delta, examples, delta)
            for examples in (
                settings.max_examples,
                *(one for one in _EXAMPLES if one < settings.max_examples),
            )
            for delta in (settings.max_delta, *(one for one in _DELTAS if one < settings.max_delta))
            if scale_bits_of(examples, delta, settings.slots, bits) >= LEAST_PLACES
        ]
        if fit:
            _, examples, delta = max(fit)
            return (
                f"a masked update is {length_of(width):g} × as long as a plain one; "
                f"with --max-examples {examples} --max-delta {delta:g} it would be {length_of(bits):g} ×"
            )
    return None
