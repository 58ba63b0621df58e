"""The models of an asynchronous run computed from its journal alone, to compare them with those that it made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fl_aggregator.configuration.staleness import parse_staleness
from fl_aggregator.round import effects as do
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.replay import replay
from fl_aggregator.storage.run_directory import read_run
from fl_shared.tensors.manifest import Manifest, Vector
from fl_shared.tensors.spans import spans


def check_models(
    directory: Path, manifest: Manifest, first: Vector, delta: Callable[[UpdateMetadata], Vector]
) -> list[do.Average]:
    """Checks each version that the run in ``directory`` has made; returns the averages that follow from its journal.

    ``first``: the weights of version 0. ``delta``: the values of an accepted update.
    """
    record = read_run(directory)
    averages: list[do.Average] = []
    digests: dict[int, str] = {}
    for snapshot, effects in replay(record, directory):
        averages += [
            effect for effect in effects if isinstance(effect, do.Average) and effect.base is not None
        ]
        if snapshot.state.model is not None:
            digests[snapshot.state.version] = snapshot.state.model.digest
    versions = list(range(1, record.settings.rounds + 1))
    assert [average.version for average in averages] == versions, "each version is averaged once"
    staleness, bits = parse_staleness(record.settings.staleness or ""), record.settings.scale_bits
    buffers = np.zeros(manifest.values, bool)
    for span in spans(manifest, buffers=True):
        buffers[slice(*span)] = True
    weights, made = first, [first]
    assert Model.of(manifest, weights).digest == digests[0]
    for average in averages:
        assert len(average.contributors) == record.settings.buffer
        total = np.zeros(len(weights), np.int64)
        for update in average.contributors:
            weight = update.examples * np.where(buffers, 1.0, staleness(update.staleness))
            total += np.rint(delta(update).astype(np.float64) * weight * 2.0**bits).astype(np.int64)
        examples = sum(update.examples for update in average.contributors)
        change = total / 2.0**bits / examples
        for update in average.contributors:
            own = made[average.version - 1 - update.staleness].astype(np.float64)
            change += update.examples / examples * np.where(buffers, own - weights, 0.0)
        weights = (weights + change).astype(np.float32)
        made.append(weights)
        assert Model.of(manifest, weights).digest == digests[average.version], f"version {average.version}"
    return averages
