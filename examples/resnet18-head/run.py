"""Pictures with ResNet-18, of which only the last layer is trained and travels: 6 kB an update instead of 45 MB.

    python examples/resnet18-head/run.py [DIR] [WEIGHTS]

draws pictures of three shapes for four sites into DIR (default: runs/resnet18-head), with a fixed seed, and trains on
them through a real broker. WEIGHTS is a file with pretrained weights, such as torchvision's resnet18-f37072fd.pth.
Without it the frozen layers have random weights: the last layer learns from random features, which are poorer.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

SITES: Final = 4
PICTURES: Final = 24
"""Of each class at each site."""
CLASSES: Final = ("circle", "cross", "stripes")
SIDE: Final = 64


def picture(name: str, rng: np.random.Generator) -> Image.Image:
    """Returns a picture of the shape, in any colours, size and place."""
    back, ink = (tuple(int(value) for value in rng.integers(low, low + 100, 3)) for low in (20, 150))
    image = Image.new("RGB", (SIDE, SIDE), back)
    draw = ImageDraw.Draw(image)
    radius = int(rng.integers(14, 26))
    x, y = (int(value) for value in rng.integers(radius, SIDE - radius, 2))
    if name == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
    elif name == "cross":
        draw.line((x - radius, y, x + radius, y), fill=ink, width=7)
        draw.line((x, y - radius, x, y + radius), fill=ink, width=7)
    else:
        for top in range(int(rng.integers(0, 8)), SIDE, 10):
            draw.line((0, top, SIDE, top), fill=ink, width=4)
    noise = rng.normal(0, 8, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def main() -> int:
    """Draws the pictures, and runs the simulation."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/resnet18-head")
    weights = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    data = directory / "data"
    for number, site in enumerate(("test", *(f"site-{k}" for k in range(SITES)))):
        rng = np.random.default_rng([11, number])
        for name in CLASSES:
            folder = data / site / name
            folder.mkdir(parents=True, exist_ok=True)
            for k in range(PICTURES):
                picture(name, rng).save(folder / f"{k:02}.png")
    options = ["model=resnet18", "head_only=true", f"side={SIDE}"]
    if weights is None:
        sys.stderr.write("no file of weights: the frozen layers of ResNet-18 have random weights\n")
    else:
        shutil.copy(weights, data / weights.name)
        options.append(f"weights={weights.name}")
    command = [
        "fl-aggregator", "simulate", "--task", "images", "--data", str(data), "--partition", "natural",
        *(argument for option in options for argument in ("--task-option", option)),
        "--clients", str(SITES), "--per-round", str(SITES), "--rounds", "8", "--epochs", "10",
        "--run-dir", str(directory / "run"), "--predict", str(data / "test" / "cross" / "00.png"),
    ]  # fmt: skip
    return subprocess.run([Path(sys.executable).parent / command[0], *command[1:]], check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
