"""PURE: a release as the ledger of a budget over runs says it, and what earlier runs have told about each edge.

Noise of different runs is independent, so that their Gaussian mechanisms compose: μ² adds up (Dong, Roth, Su 2019,
arXiv:1905.02383, corollary 3.3).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fl_aggregator.privacy.correlated_noise import coefficients, sensitivities
from fl_shared.protocol.messages import ClientId, RunId


class LedgerRelease(BaseModel):
    """A version that was made from updates, with the noise that it has. See `PrivacyPlan` for the other values.

    ``noise``: that of this release. ``published``: whether the line says that the version was about to be published,
    and not that its sum was about to be made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    run: RunId
    round: Annotated[int, Field(ge=1)]
    version: Annotated[int, Field(ge=1)]
    clip: Annotated[float, Field(gt=0)]
    noise: Annotated[float, Field(gt=0)]
    bands: Annotated[int, Field(ge=1)] = 1
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.0
    contributors: tuple[ClientId, ...]
    published: bool = False


def spent_before(releases: Iterable[LedgerRelease]) -> dict[str, float]:
    """Returns μ² of each edge, by client.

    A round may be there twice, with other contributors, if its aggregator was killed: all of them are charged.
    """
    by_run: defaultdict[str, list[LedgerRelease]] = defaultdict(list)
    for release in releases:
        by_run[release.run].append(release)
    total: defaultdict[str, float] = defaultdict(float)
    for _, found in sorted(by_run.items()):
        for client, square in _of_run(found).items():
            total[client] += square
    return dict(sorted(total.items()))


def _of_run(releases: Sequence[LedgerRelease]) -> Mapping[str, float]:
    newest = releases[-1]
    taken: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for release in releases:
        # The sum of an abandoned round may have been seen, if it was masked; correlated noise is for versions only.
        number = release.round if release.bands == 1 else release.version
        for client in release.contributors:
            taken[client][number] = release.noise**-2
    names = sorted(taken)
    if newest.bands == 1:
        return {name: math.fsum(taken[name].values()) for name in names}
    patterns = [sorted(version - 1 for version in taken[name]) for name in names]
    made = max(release.version for release in releases)
    squares = np.square(
        sensitivities(coefficients(newest.gamma, newest.bands), patterns, made) / newest.noise
    )
    return dict(zip(names, squares.tolist(), strict=True))
