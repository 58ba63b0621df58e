"""Pictures for tests."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray


def ring(
    size: int = 60, top: int = 10, left: int = 25, height: int = 40, width: int = 20
) -> NDArray[np.uint8]:
    """A digit 0 of sorts, light on dark, away from the middle."""
    image = np.zeros((size, size), dtype=np.uint8)
    image[top : top + height, left : left + width] = 255
    image[top + 6 : top + height - 6, left + 6 : left + width - 6] = 0
    return image


def pixels(value: object) -> bytes:
    return json.dumps({"pixels": value}).encode()
