"""Divides a data set into partitions. PURE: all edges get the same from the same labels and ``Partition``.

All draws come from ``numpy.random.Generator`` (PCG64) seeded with the partition's seed. NumPy may change the
streams of a ``Generator`` between feature releases (NEP 19), so edges that share a data set should use the
same release.
"""

from __future__ import annotations

import math
from typing import Final, assert_never

import numpy as np
from numpy.typing import NDArray

from fl_shared.protocol.messages import Partition
from fl_shared.protocol.partition_scheme import (
    Dirichlet,
    Iid,
    Natural,
    OwnData,
    PartitionScheme,
    Pathological,
    Quantity,
    Shards,
    parse_scheme,
)

Indices = NDArray[np.int64]
"""Positions in a data set, ascending, shape (examples of the partition,)."""

SHARDS_PER_PARTITION: Final = 2
"""Shards of each partition in the scheme ``shards``."""
MIN_EXAMPLES: Final = 8
"""The fewest examples of a partition in uneven schemes (a quarter of the average partition, if that is
less)."""

_SUBSET, _PARTITIONS, _HOLDOUT = 1, 2, 3


def split(labels: NDArray[np.int64], partition: Partition) -> tuple[Indices, Indices]:
    """Returns the indices for training, and those held out, of the partition that ``partition`` names.

    ``labels`` has the class of each example of the whole data set, shape (examples,). The partitions are
    disjoint; together they are the data set, or its seeded subset of ``partition.examples``. The holdout is a
    uniform draw of ``round(holdout × size)`` examples from the partition, but leaves one example for
    training.

    Raises ``ValueError`` naming the member of ``partition`` that does not fit the data set.
    """
    return hold_out(partitions(labels, partition)[partition_index(partition)], partition)


def partitions(labels: NDArray[np.int64], partition: Partition) -> list[Indices]:
    """Returns the indices of all partitions, or of the only one for ``own``.

    The members ``index`` and ``holdout`` play no role. Raises ``ValueError`` if the data set has too few
    examples, and for ``natural``: labels alone tell no natural parts, so a task that has them picks its own.
    """
    scheme = parse_scheme(partition.scheme)
    selected = _subset(len(labels), partition)
    count = 1 if isinstance(scheme, OwnData) else partition.count
    if len(selected) < count:
        raise ValueError(f"count: {count} partitions, but the data set has only {len(selected)} examples")
    rng = _rng(partition.seed, _PARTITIONS)
    return [np.sort(partition_indices) for partition_indices in _divide(scheme, labels, selected, count, rng)]


def hold_out(partition_indices: Indices, partition: Partition) -> tuple[Indices, Indices]:
    """Splits the indices of one partition into those for training and the holdout."""
    holdout_size = min(round(partition.holdout * len(partition_indices)), len(partition_indices) - 1)
    order = _rng(partition.seed, _HOLDOUT, partition.index).permutation(len(partition_indices))
    return np.sort(partition_indices[order[holdout_size:]]), np.sort(partition_indices[order[:holdout_size]])


def partition_index(partition: Partition) -> int:
    """Returns which of the `partitions` is meant: ``index``, or 0 for ``own``.

    Raises ``ValueError`` if ``index`` is not less than ``count``.
    """
    if isinstance(parse_scheme(partition.scheme), OwnData):
        return 0
    if partition.index >= partition.count:
        raise ValueError(f"index: {partition.index}, expected less than count ({partition.count})")
    return partition.index


def _rng(*entropy: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(entropy))


def _subset(available: int, partition: Partition) -> Indices:
    count = partition.examples
    if available == 0:
        raise ValueError("the data set has no examples")
    if count is None:
        return np.arange(available, dtype=np.int64)
    if count > available:
        raise ValueError(f"examples: {count}, but the data set has only {available}")
    return np.sort(_rng(partition.seed, _SUBSET).permutation(available)[:count])


def _divide(
    scheme: PartitionScheme,
    labels: NDArray[np.int64],
    selected: Indices,
    count: int,
    rng: np.random.Generator,
) -> list[Indices]:
    match scheme:
        case OwnData():
            return [selected]
        case Iid():
            return np.array_split(rng.permutation(selected), count)
        case Shards():
            return _shards(labels, selected, count, rng)
        case Pathological(classes=classes):
            return _pathological(labels, selected, count, classes, rng)
        case Dirichlet(alpha=alpha):
            return _dirichlet(labels, selected, count, alpha, rng)
        case Quantity(alpha=alpha):
            proportions = rng.dirichlet(np.full(count, alpha))
            sizes = _apportion(len(selected), proportions, min_size=_min_examples(len(selected), count))
            return _split_by_sizes(rng.permutation(selected), sizes)
        case Natural():
            raise ValueError(
                "scheme: natural, but this data set has no natural parts (expected another --partition)"
            )
        case _:
            assert_never(scheme)


def _shards(
    labels: NDArray[np.int64], selected: Indices, count: int, rng: np.random.Generator
) -> list[Indices]:
    shards = count * SHARDS_PER_PARTITION
    if len(selected) < shards:
        raise ValueError(
            f"scheme: shards needs {shards} examples for {count} partitions, but there are {len(selected)}"
        )
    shuffled = rng.permutation(selected)
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    shard_indices = np.array_split(by_label, shards)
    assignment = rng.permutation(shards).reshape(count, SHARDS_PER_PARTITION)
    return [np.concatenate([shard_indices[shard] for shard in pieces_of_one]) for pieces_of_one in assignment]


def _pathological(
    labels: NDArray[np.int64], selected: Indices, count: int, classes: int, rng: np.random.Generator
) -> list[Indices]:
    """Deals each class out to the partitions that have it, in pieces of equal size.

    Each partition takes the classes of which most pieces are left, so that they never run out of different ones.
    """
    known, examples = np.unique(labels[selected], return_counts=True)
    pieces = count * classes
    if not len(known) / count <= classes <= len(known):
        raise ValueError(
            f"scheme: pathological:{classes}, but the data set has {len(known)} classes "
            f"(expected {math.ceil(len(known) / count)} to {len(known)} for {count} partitions)"
        )
    # Whole decks of all classes, and a few of another, so that each class has as many pieces as any other, to one.
    left = np.full(len(known), pieces // len(known))
    left[rng.permutation(len(known))[: pieces % len(known)]] += 1
    if (examples < left).any():
        rare = int(np.argmax(left - examples))
        raise ValueError(
            f"scheme: pathological:{classes} gives class {known[rare]} to {left[rare]} partitions, "
            f"but it has only {examples[rare]} examples"
        )
    hands = [
        np.array_split(rng.permutation(selected[labels[selected] == label]), int(number))
        for label, number in zip(known, left, strict=True)
    ]
    result: list[Indices] = []
    for _ in range(count):
        order = rng.permutation(len(known))
        chosen = order[np.argsort(-left[order], kind="stable")][:classes]
        left[chosen] -= 1
        result.append(np.concatenate([hands[label].pop() for label in chosen]))
    return result


def _dirichlet(
    labels: NDArray[np.int64], selected: Indices, count: int, alpha: float, rng: np.random.Generator
) -> list[Indices]:
    """Label skew after Hsu et al. 2019 (arXiv:1909.06335), class by class as in Yurochkin et al. 2019.

    Hsu draws each client's mixture of classes and samples from it, which uses up no data set exactly. Drawing
    how each class spreads over the clients does, so that every example belongs to a partition. Partitions
    then differ in size, too. A partition with too few examples gets the rest from the largest one at that
    moment (others draw again until it fits, which need not end).
    """
    assigned: list[list[Indices]] = [[] for _ in range(count)]
    for label in np.unique(labels[selected]):
        class_indices = rng.permutation(selected[labels[selected] == label])
        sizes = _apportion(len(class_indices), rng.dirichlet(np.full(count, alpha)), min_size=0)
        for pieces_of_one, class_piece in zip(assigned, _split_by_sizes(class_indices, sizes), strict=True):
            pieces_of_one.append(class_piece)
    result = [rng.permutation(np.concatenate(hand)) for hand in assigned]
    min_size = _min_examples(len(selected), count)
    sizes = np.array([len(partition_indices) for partition_indices in result])
    for receiver in np.flatnonzero(sizes < min_size):
        while sizes[receiver] < min_size:
            donor = int(np.argmax(sizes))
            moved = min(min_size - sizes[receiver], sizes[donor] - min_size)
            result[receiver] = np.concatenate([result[receiver], result[donor][:moved]])
            result[donor] = result[donor][moved:]
            sizes[receiver] += moved
            sizes[donor] -= moved
    return result


def _min_examples(examples: int, count: int) -> int:
    return max(1, min(MIN_EXAMPLES, examples // (4 * count)))


def _apportion(total: int, proportions: NDArray[np.float64], min_size: int) -> NDArray[np.int64]:
    """Returns whole sizes of at least a minimum that sum to ``total``, the rest in proportion to the shares."""
    remaining = total - min_size * len(proportions)
    exact = proportions / proportions.sum() * remaining
    sizes: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    remainder = remaining - int(sizes.sum())
    # A stable sort, so that ties are broken alike on every machine.
    sizes[np.argsort(sizes - exact, kind="stable")[:remainder]] += 1
    sizes += min_size
    return sizes


def _split_by_sizes(items: Indices, sizes: NDArray[np.int64]) -> list[Indices]:
    return np.split(items, np.cumsum(sizes)[:-1])
