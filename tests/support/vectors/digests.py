"""``digests.json``: BLAKE3 itself, the digests of manifests (3.3) and those of contents (3.4)."""

from __future__ import annotations

import json
from typing import Any

from fl_shared.tensors.digest import content_digest, digest_of
from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support.samples import DATA, MANIFEST

LENGTHS = (0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 4096, 5121, 8193, 31744)
"""Around the ends of BLAKE3's blocks (64 bytes) and chunks (1024), and trees of several shapes."""
MANIFESTS = (
    MANIFEST,
    Manifest(arrays=(ArraySpec(name="fc1.bias", shape=(10,)), ArraySpec(name="fc1.weight", shape=(10, 64)))),
    Manifest(
        arrays=(
            ArraySpec(name='a"b\\c', shape=(1,)),
            ArraySpec(name="scale", shape=()),
            ArraySpec(name="schärfe", shape=(2, 0), role="buffer"),
            ArraySpec(name="\U0001f600", shape=(3,)),
        )
    ),
)


def vectors() -> dict[str, Any]:
    """All digests."""
    sections = [("control", "f32", MANIFEST.digest, DATA[::-1]), ("weights", "f32", MANIFEST.digest, DATA)]
    return {
        "blake3": {
            "input": "byte i of the input is i modulo 251",
            "digests": {str(n): digest_of(bytes(i % 251 for i in range(n))) for n in LENGTHS},
        },
        "manifests": [
            {
                "arrays": json.loads(manifest.model_dump_json())["arrays"],
                "values": manifest.values,
                "digest": manifest.digest,
            }
            for manifest in MANIFESTS
        ],
        "contents": [
            {
                "sections": [
                    {"name": name, "encoding": encoding, "manifest": manifest, "data": data.hex()}
                    for name, encoding, manifest, data in given
                ],
                "digest": content_digest(given),
            }
            for given in (sections[1:], sections, [("delta", "f32", MANIFEST.digest, DATA)])
        ],
    }
