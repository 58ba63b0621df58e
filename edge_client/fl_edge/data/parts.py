"""The part of a built-in data set that an edge has."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fl_edge.data import datasets
from fl_edge.data.partition import Indices, hold_out, partition_index, partitions
from fl_shared.protocol.messages import Partition


def part_of(
    name: datasets.DataSetName, data_dir: Path | None, partition: Partition
) -> tuple[Indices, Indices]:
    """Returns the indices in the training split that ``partition`` means, and those of them that it holds out."""
    common = partition.model_copy(update={"index": 0, "holdout": 0.0})
    return hold_out(_partitions(name, data_dir, common)[partition_index(partition)], partition)


@lru_cache(maxsize=4)
def _partitions(name: datasets.DataSetName, data_dir: Path | None, partition: Partition) -> list[Indices]:
    """Cached, since a worker serves many edges, and one edge's partition costs as much as all of them."""
    return partitions(datasets.read(name, "train", data_dir).labels, partition)


def forget() -> None:
    """Forgets the partitions of data sets."""
    _partitions.cache_clear()
