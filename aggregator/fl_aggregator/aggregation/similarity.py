"""Who is unlike the others: the edges of a round compared by the exact inner products of their updates.

Δₖ are the parameters of the updates as they came, without buffers and before transforms. With pₖ = nₖ / Σ n, the plain
mean is Δ̄ = Σ pₖ Δₖ, whatever the strategy makes of them. Of each edge:

- its *share* of the mean, pₖ ⟨Δₖ, Δ̄⟩ / ‖Δ̄‖². The shares have the sum 1. Who works against the mean has less than 0, but
  an update that is so long that it turns the mean has most of it;
- its *influence*, ‖Δ̄ − Δ̄₋ₖ‖ / ‖Δ̄‖ = pₖ / (1 − pₖ) ‖Δₖ − Δ̄‖ / ‖Δ̄‖: how far the mean would move without it
  (leave-one-out, from inner products alone: nothing is averaged again);
- the cosine with the mean *direction* of the others, Σ Δⱼ / ‖Δⱼ‖ over j ≠ k, which no long update outweighs.

An outlier has a cosine below the median of all by more than 3 deviations (1.4826 × the median absolute deviation) and
0.1, or an update more than 3 times as long as the median. That is a hint, and no proof: rare data are unlike, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.aggregation.inner_products import gram
from fl_aggregator.configuration.checks import MIN_COMPARED
from fl_aggregator.round.events import Similarity, UpdateMetadata
from fl_shared.protocol import messages as m
from fl_shared.tensors.encodings.section import Values
from fl_shared.tensors.manifest import Manifest
from fl_shared.tensors.spans import spans

MAX_PAIRED: Final = m.MAX_MAPPED
"""Edges up to which the cosines of all pairs are kept."""
_DEVIATIONS: Final = 3.0
_LEAST_DISTANCE: Final = 0.1
_MAX_LENGTH: Final = 3.0

Doubles = NDArray[np.float64]


def compare(
    updates: Sequence[UpdateMetadata], read: Callable[[str], Values], manifest: Manifest
) -> Similarity | None:
    """Compares the updates of a round, which ``read`` returns by client; null if there are fewer than three."""
    if len(updates) < MIN_COMPARED:
        return None
    ordered = sorted(updates, key=lambda update: update.client)
    return of_gram(
        [update.client for update in ordered],
        np.array([update.examples for update in ordered], np.float64),
        gram([read(update.client) for update in ordered], spans(manifest, buffers=False)),
    )


def of_gram(clients: Sequence[str], examples: Doubles, products: Doubles) -> Similarity:
    """Returns the similarity of updates with these inner products, shape (clients, clients)."""
    lengths = np.sqrt(np.diag(products))
    safe = np.where(lengths > 0, lengths, 1.0)
    cosines = np.clip(products / np.outer(safe, safe), -1.0, 1.0)
    to_others = np.array([_cosine_to_others(cosines, index) for index in range(len(clients))])
    weights = examples / examples.sum()
    cross = np.add.reduce(products * weights[:, None], axis=0)
    square = float(np.add.reduce(cross * weights))
    unit = square if square > 0 else 1.0
    distances = np.sqrt(np.maximum(np.diag(products) - 2 * cross + square, 0.0))
    middle = float(np.median(lengths))
    relative = lengths / (middle or 1.0)
    influences = weights / np.maximum(1 - weights, 1e-12) * distances / np.sqrt(unit)
    return Similarity(
        clients=tuple(clients),
        cosines=tuple(map(_rounded, cosines)) if len(clients) <= MAX_PAIRED else (),
        to_others=_rounded(to_others),
        lengths=_rounded(relative),
        shares=_rounded(weights * cross / unit),
        influences=_rounded(influences),
        outliers=_outliers(clients, to_others, relative),
        median_length=float(f"{middle:.4g}"),
    )


def _cosine_to_others(cosines: Doubles, index: int) -> float:
    others = np.delete(np.arange(len(cosines)), index)
    square = float(np.add.reduce(cosines[np.ix_(others, others)], axis=None))
    if square <= 0:
        return 0.0
    return float(np.clip(np.add.reduce(cosines[index, others]) / np.sqrt(square), -1.0, 1.0))


def _outliers(clients: Sequence[str], to_others: Doubles, lengths: Doubles) -> dict[str, str]:
    middle = float(np.median(to_others))
    deviation = 1.4826 * float(np.median(np.abs(to_others - middle)))
    least = middle - max(_DEVIATIONS * deviation, _LEAST_DISTANCE)
    found = {}
    for client, cosine, length in zip(clients, to_others, lengths, strict=True):
        if cosine < least:
            found[client] = f"cosine {cosine:.2f} to the others, the median is {middle:.2f}"
        elif length > _MAX_LENGTH:
            found[client] = f"{length:.1f} times as long as the median"
    return found


def _rounded(values: Doubles) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)
