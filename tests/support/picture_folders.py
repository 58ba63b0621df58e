"""Folders of small pictures, a colour for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

INK: Final = {"blue": (20, 30, 220), "green": (20, 200, 30), "red": (220, 20, 30)}


def fill(folder: Path, *classes: str, count: int = 6, seed: int = 0, side: int = 20) -> Path:
    """Writes ``folder/CLASS/*.png``, noisy pictures in the colour of the class, and returns the folder."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.array(INK[name]) + rng.normal(0, 20, (side, side, 3))
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(folder / name / f"{number}.{'jpg' if number == 1 else 'png'}")
    return folder
