"""Tables of synthetic sites: a regression and a classification."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HOUSES = ("area", "rooms", "kind", "price")


def write_csv(path: Path, names: tuple[str, ...], rows: list[tuple[object, ...]]) -> Path:
    """Writes a table, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [names, *rows]
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return path


def houses(path: Path, seed: int, examples: int = 80) -> Path:
    """Writes a table of houses, whose price in k€ is linear in their area, rooms and kind; a few areas are missing."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[object, ...]] = []
    for _ in range(examples):
        # Sites differ in the size of their houses.
        area, rooms, kind = rng.normal(100 + 30 * seed, 20), rng.integers(2, 8), rng.choice(["flat", "house"])
        price = 3 * area + 20 * rooms + 60 * (kind == "house") + rng.normal(0, 3)
        rows.append(("" if rng.random() < 0.05 else f"{area:.1f}", rooms, kind, f"{price:.1f}"))
    return write_csv(path, HOUSES, rows)


def patients(path: Path, seed: int, examples: int = 200) -> Path:
    """Writes a table of patients who are ill or well, whose age, pressure and sex tell a part of it."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[object, ...]] = []
    for _ in range(examples):
        age, pressure, sex = rng.normal(50 + 5 * seed, 9), rng.normal(130, 15), rng.choice(["Male", "Female"])
        risk = (age - 55) / 6 + (pressure - 130) / 12 + (1.5 if sex == "Male" else -1.5) + rng.logistic()
        gap = rng.random() < 0.1 * seed
        rows.append((f"{age:.0f}", "" if gap else f"{pressure:.0f}", sex, "ill" if risk > 0 else "well"))
    return write_csv(path, ("age", "pressure", "sex", "state"), rows)
