"""The tallies of a masked update: its numbers, of which others learn those of all members together (protocol, 10.5)."""

from __future__ import annotations

from fl_edge.training.executor import TrainedUpdate
from fl_shared.masking.tallies import Tallies
from fl_shared.protocol.messages import LOSS


def tallies_of(update: TrainedUpdate, primary: str) -> Tallies:
    """Returns what the edge has measured; what it does not have counts as 0.

    ``primary``: the name of the metric by which versions are compared.
    """
    train, before, after = (
        found or {} for found in (update.metrics.train, update.metrics.before, update.metrics.after)
    )
    scores = [found.get(name, 0.0) for found in (before, after) for name in (LOSS.name, primary)]
    return Tallies(update.examples, int(after.get("examples", 0)), train.get(LOSS.name, 0.0), *scores)
