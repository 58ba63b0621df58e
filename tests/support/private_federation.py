"""A federation in memory whose runs have differential privacy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fl_aggregator.storage.noise_keys import FILE_NAME
from tests.support.masked_federation import MaskedFederation
from tests.support.simulated_masked_edge import PARAMETERS_ONLY

Begin = Callable[..., MaskedFederation]
CLIP: Final = 0.5
PRIVATE: Final[dict[str, Any]] = {
    "dp": "central",
    "dp_clip": str(CLIP),
    "dp_noise": 2.0,
    "dp_apart": "1",
}
RARELY: Final[dict[str, Any]] = {"per_round": 2, "quorum": 2, "dp_apart": "2"}
"""An edge is in every other release at most, so that correlated noise helps."""


def private_federation(directory: Path, **settings: Any) -> MaskedFederation:
    """Returns an aggregator with 5 edges and noise of a multiplier of 2, unless ``settings`` say otherwise."""
    usual = {**PRIVATE, "holdout": 0.0, **settings}
    return MaskedFederation(directory, masked=False, manifest=PARAMETERS_ONLY, **usual)


def runs_with(directory: Path, **usual: Any) -> Begin:
    """Returns a function that begins such a run in a folder of that name, with ``usual`` unless it says otherwise."""

    def begun(name: str, **settings: Any) -> MaskedFederation:
        return private_federation(directory / name, **{**usual, **settings})

    return begun


def keys_on_disk(run: MaskedFederation) -> dict[str, str]:
    """The keys of the noise that are on the disk, by version."""
    file = run.directory / FILE_NAME
    found = json.loads(file.read_text())["keys"] if file.exists() else {}
    return {version: one["key"] for version, one in found.items()}
