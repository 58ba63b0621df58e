"""PURE: a release as the ledger of a budget over runs says it, and what earlier runs have told about each edge.

Noise of different runs is independent, so that their Gaussian mechanisms compose: μ² adds up (Dong, Roth, Su 2019,
arXiv:1905.02383, corollary 3.3). Against ``models``, the privacy losses of sampled ones are composed with them; a
Gaussian mechanism is one with the rate 1. Against ``wire``, who may see who took part, a secret cohort counts as if all
edges were in it: who were is nowhere in the ledger, and whom a later run leaves out must not tell it either.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fl_aggregator.privacy.correlated_noise import coefficients, sensitivities
from fl_aggregator.privacy.subsampled import Releases
from fl_shared.protocol.messages import ClientId, RunId


class LedgerRelease(BaseModel):
    """A version that was made from updates, with the noise that it has. See `PrivacyPlan` for the other values.

    ``noise``: that of this release. ``rate``: the probability with which each edge is in it, if its cohort is secret,
    and null else; it names no ``contributors`` then. ``published``: whether the line says that the version was about to
    be published, and not that its sum was about to be made.
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
    rate: Annotated[float, Field(gt=0, le=1)] | None = None
    published: bool = False


class Earlier(BaseModel):
    """What earlier runs have told. ``squares``: by client, μ² of the releases of which it is known who is in them.

    ``secret``: the releases of secret cohorts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    squares: Mapping[str, float] = {}
    secret: tuple[Releases, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.squares or self.secret)

    @cached_property
    def square_of_all(self) -> float:
        """μ² of an edge that is in no release with known cohorts, against who sees who took part."""
        return math.fsum([number / noise**2 for noise, _, number in self.secret])

    def square_of(self, client: str) -> float:
        """μ² of a client, against who sees who took part."""
        return self.squares.get(client, 0.0) + self.square_of_all

    @cached_property
    def square_of_most(self) -> float:
        """μ² of the client that has spent most, against who sees who took part."""
        return max(self.squares.values(), default=0.0) + self.square_of_all

    @cached_property
    def of_models(self) -> tuple[Releases, ...]:
        """What the models have told about the client that has spent most, to who sees nothing else of secret cohorts.

        Releases with known cohorts are one Gaussian mechanism.
        """
        most = max(self.squares.values(), default=0.0)
        return (*self.secret, Releases(1 / math.sqrt(most), 1.0, 1)) if most else self.secret


NOTHING_EARLIER: Final = Earlier()


def spent_before(releases: Iterable[LedgerRelease]) -> Earlier:
    """Returns what they have told.

    A round may be there twice, with other contributors, if its aggregator was killed: all of them are charged.
    """
    by_run: defaultdict[str, list[LedgerRelease]] = defaultdict(list)
    for release in releases:
        by_run[release.run].append(release)
    total: defaultdict[str, float] = defaultdict(float)
    secret: Counter[tuple[float, float]] = Counter()
    for _, found in sorted(by_run.items()):
        secret.update({one.round: (one.noise, one.rate) for one in found if one.rate is not None}.values())
        for client, square in _of_run([one for one in found if one.rate is None]).items():
            total[client] += square
    return Earlier(
        squares=dict(sorted(total.items())),
        secret=tuple(Releases(noise, rate, number) for (noise, rate), number in sorted(secret.items())),
    )


def _of_run(releases: Sequence[LedgerRelease]) -> Mapping[str, float]:
    if not releases:
        return {}
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
