"""The versions of a playbook's run, as real models, so that their checkpoints can be written."""

from __future__ import annotations

from functools import cache

import numpy as np

from fl_aggregator.storage.checkpoint import Model
from fl_shared.tensors.manifest import ArraySpec, Manifest

MANIFEST = Manifest(arrays=(ArraySpec(name="w", shape=(1,)),))


@cache
def model_of(version: int) -> Model:
    return Model.of(MANIFEST, np.array([version], "<f4"))


def digest_of(version: int) -> str:
    """The digest of a version in these tests; an update's can be any text."""
    return model_of(version).digest


def version_of(digest: str) -> int:
    """The version with this digest."""
    return next(version for version in range(1000) if digest_of(version) == digest)
