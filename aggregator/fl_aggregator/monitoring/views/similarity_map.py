"""The groups of edges whose updates are alike, and the part of ``fl/history`` that has them and the cosines. Pure."""

from __future__ import annotations

import numpy as np

from fl_aggregator.monitoring.views.round_record import RoundRecord, first_outliers
from fl_aggregator.round.events import Similarity
from fl_shared.protocol import messages as m
from fl_shared.system import base64url
from fl_shared.system.text import natural_key


def similarity_map(record: RoundRecord | None) -> m.SimilarityMap | None:
    """Returns what ``fl/history`` says of a round whose updates were compared; null without such a round.

    Cosines are rounded to 0.01, a byte each.
    """
    if record is None or record.similarity is None:
        return None
    found = record.similarity
    groups = groups_of(found)
    edges = [name for group in groups for name in group]
    places = [found.clients.index(name) for name in edges]
    cosines = np.array(found.cosines).reshape(len(places), len(places))
    pairs = cosines[np.ix_(places, places)][np.triu_indices(len(places), 1)]
    return m.SimilarityMap(
        round=record.round,
        edges=tuple(edges),
        groups=tuple(len(group) for group in groups),
        cosines=base64url.encoded(np.rint(100 * pairs).astype(np.int8).tobytes()),
        outliers=first_outliers(found),
    )


def groups_of(found: Similarity) -> list[list[str]]:
    """Groups of edges that are alike: the two groups with the largest mean cosine are merged (average linkage).

    That ends when it is less than the mean cosine of all pairs. Empty if the cosines of pairs are not known.
    """
    if not found.cosines:
        return []
    cosines = np.array(found.cosines)
    count = len(cosines)
    least = (cosines.sum() - np.trace(cosines)) / (count * (count - 1))
    groups = [[index] for index in range(count)]
    sums = cosines  # of the pairs between two groups
    while len(groups) > 1:
        sizes = np.array([len(group) for group in groups])
        means = np.where(np.tri(len(groups), dtype=bool), -np.inf, sums / np.outer(sizes, sizes))
        first, second = divmod(int(means.argmax()), len(groups))
        if means[first, second] < least:
            break
        groups[first] += groups.pop(second)
        sums[first] += sums[second]
        sums[:, first] += sums[:, second]
        sums = np.delete(np.delete(sums, second, axis=0), second, axis=1)
    named = [sorted((found.clients[index] for index in group), key=natural_key) for group in groups]
    return sorted(named, key=lambda group: (-len(group), natural_key(group[0])))
