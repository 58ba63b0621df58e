"""``encodings.json``: sections in every encoding of floats (3.1 and 3.8 to 3.11)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_edge.training.executor import encoding_seed
from fl_shared.tensors.encodings.section import SectionFormat, decoded
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector

SEED = encoding_seed(7, 3, "lab-a")
PLAIN = Manifest(arrays=(ArraySpec(name="w", shape=(300,)),))
"""More values than a block of ``q8``."""
BUFFERED = Manifest(
    arrays=(
        ArraySpec(name="a", shape=(3,)),
        ArraySpec(name="b", shape=(2,), role="buffer"),
        ArraySpec(name="c", shape=(2, 2)),
    )
)
ENCODINGS = ("f32", "bf16", "q8", "topk:0.01", "topk:0.5", "shuffle-deflate")


def values_of(manifest: Manifest) -> Vector:
    """Values of many magnitudes and both signs, with zeros, and some that are equal in magnitude."""
    index = np.arange(manifest.values)
    values = (index * 37 % 101 - 50) * np.exp2(index % 13 - 10.0)
    return np.asarray(values * (index % 7 > 0), np.float32)


def vectors() -> dict[str, Any]:
    """Each encoding of each manifest. All values are little-endian float32."""
    return {
        "seed": {"seed": 7, "round": 3, "client": "lab-a", "pcg64": str(SEED)},
        "sections": [_section(manifest, name) for manifest in (PLAIN, BUFFERED) for name in ENCODINGS],
    }


def _section(manifest: Manifest, encoding: str) -> dict[str, Any]:
    form, values = SectionFormat.of(encoding, manifest), values_of(manifest)
    data = form.encode(values, SEED)
    return {
        "encoding": encoding,
        "arrays": [[one.name, list(one.shape), one.role] for one in manifest.arrays],
        "values": _hex(values),
        "data": bytes(data).hex(),
        "decoded": _hex(decoded(form.values_in(data))),
    }


def _hex(values: Vector) -> str:
    return values.astype("<f4").tobytes().hex()
