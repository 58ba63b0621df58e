"""The handwritten digits: edges train on them, and the dashboard hands them to browsers that take part."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DIGITS: Final = Path(__file__).with_name("digits.csv.gz")
"""1,797 images (``digits.LICENSE.md``): a row an image, 64 pixels of 0 to 16 and then the digit."""
