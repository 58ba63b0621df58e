"""A federation in memory whose runs have differential privacy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.support.masked_federation import PARAMETERS_ONLY, MaskedFederation

CLIP: Final = 0.5
PRIVATE: Final[dict[str, Any]] = {
    "dp": "central",
    "dp_clip": str(CLIP),
    "dp_noise": 2.0,
    "dp_apart": "1",
    "holdout": 0.0,
}
RARELY: Final[dict[str, Any]] = {"per_round": 2, "quorum": 2, "dp_apart": "2"}
"""An edge is in every other release at most, so that correlated noise helps."""


def private_federation(directory: Path, **settings: Any) -> MaskedFederation:
    """Returns an aggregator with 5 edges and noise of a multiplier of 2, unless ``settings`` say otherwise."""
    return MaskedFederation(directory, masked=False, manifest=PARAMETERS_ONLY, **{**PRIVATE, **settings})
