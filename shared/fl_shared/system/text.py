"""Text for people: sizes, durations, lists of names; untrusted text made safe for a log or a terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

_CONTROL_CHARACTERS: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters (C0, DEL, C1), line separators, changes of writing direction, lone surrogates."""


def one_line(text: str) -> str:
    """``text`` with a space for each character that ends a line, moves the cursor or turns the direction."""
    return _CONTROL_CHARACTERS.sub(" ", text)


def path_text(path: Path | str) -> str:
    """A path as text that can be encoded: bytes that are not UTF-8 as ``\\xff``."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def shortened(text: str, most: int) -> str:
    """``text``, cut to at most ``most`` characters; if it was cut, the last one is an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key to sort names as people count: ``cam2`` before ``cam10``, and ``2`` before ``10``."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts)


def natural_order(names: Iterable[str]) -> list[str]:
    """``names``, sorted by `natural_key`."""
    return sorted(names, key=natural_key)


def names_text(names: Sequence[str], most: int = 10) -> str:
    """The first ``most`` of ``names``, and the number of the others: ``a, b and 3 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def size_text(size: float) -> str:
    """A rounded number of bytes in decimal units: ``999 bytes``, ``1.7 MB``, ``213 kB``."""
    if size < 1000:
        return f"{size:.0f} bytes"
    amount, unit = size / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if amount >= 99.95 else f"{amount:.1f} {unit}"


def number_text(value: float | None) -> str:
    """A measured number: four decimal places below 10, fewer above; a dash for null."""
    if value is None:
        return "–"
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-3:
        return f"{value:.3g}"
    return f"{value:.4f}" if size < 10 else f"{value:.2f}" if size < 1000 else f"{value:.0f}"


def quantity_text(value: float | None, unit: str) -> str:
    """A measured number with its unit: ``21.85 kWh``. A fraction (unit ``%``) is shown as such: ``0.9712``."""
    return number_text(value) + (f" {unit}" if value is not None and unit not in ("", "%") else "")


def limit_text(size: int | None) -> str:
    """An exact number of bytes as in a configuration: ``64 KiB``, ``20,000 bytes``, ``any size`` (None)."""
    if size is None:
        return "any size"
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size:,} bytes"


def duration_text(seconds: float) -> str:
    """Seconds, rounded for people: ``4.2 s``, ``42 s``, ``3 min 20 s``, ``2 h 5 min``, ``1 d 3 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 600 and whole % 60:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 3600:
        return f"{round(whole / 60)} min"
    if whole < 86_400:
        minutes = whole % 3600 // 60
        return f"{whole // 3600} h {minutes} min" if minutes else f"{whole // 3600} h"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def version_text(first: int | None, last: int) -> str:
    """Names a version, or the mean of the versions from ``first`` to ``last``."""
    return f"version {last}" if first is None else f"the mean of versions {first}–{last}"
