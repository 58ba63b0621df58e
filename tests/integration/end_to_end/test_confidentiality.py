"""The broker's operator cannot read an update that is sealed."""

from __future__ import annotations

import numpy as np
import pytest

from fl_edge.training.executor import edge_seed
from fl_edge.training.synthetic_executor import SyntheticExecutor
from fl_shared.protocol import codec
from tests.support.builders import partition
from tests.support.provisioned_site import VALUES, Site, heard, undisturbed
from tests.support.simulated_aggregator import TRAINING

pytestmark = pytest.mark.broker


def delta(client: str, number: int) -> bytes:
    """What an edge learns in a round, as it stands in its update: the task draws it from client, round and seed."""
    vector = np.zeros(VALUES, dtype="<f4")
    executor = SyntheticExecutor(VALUES)
    part = partition(count=2, holdout=0)
    training = TRAINING.model_copy(update={"seed": 0})
    made = executor.train(
        vector, executor.initial_weights(0, np.empty), part, training, number, client, lambda: False,
        lambda n: np.empty(n, "<f4"),
    )  # fmt: skip
    assert edge_seed(0, number, client) is not None
    return bytes(made.delta.tobytes())


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "plain"])
def test_the_brokers_operator_reads_no_update(site: Site, sealed: bool) -> None:
    """Clause 9.10. The same listener reads it all where nothing is sealed."""
    observer = site.forger()
    for name in ("0", "1"):
        site.edge(name, *(["--seal"] if sealed else []))
    site.aggregator("run", *(["--require-sealed"] if sealed else [])).ends_well()
    undisturbed(site, "run", 3)
    messages = [
        (topic, payload)
        for topic, payload in heard(observer)
        if topic.startswith(("fl/updates/", "fl/register/", "fl/evaluations/")) and payload
    ]
    assert len({topic for topic, _ in messages}) >= 4
    assert all(codec.is_sealed(payload) is sealed for _, payload in messages)
    seen = b"".join(payload for _, payload in messages)
    patterns = [delta(client, number) for client in ("0", "1") for number in (1, 2, 3)]
    known = [piece[start : start + 16] for piece in patterns for start in (0, 4000, 12_000)]
    known += [b"delta", b"metrics", b"sections", b"examples", b'"register"', b"session"]
    assert [piece in seen for piece in known] == [not sealed] * len(known)


def test_an_update_that_comes_in_chunks_is_sealed_as_well(site: Site) -> None:
    task = "synthetic-1200000"
    observer = site.forger()
    for name in ("0", "1"):
        site.edge(name, "--seal", "--chunk", "500000", task=task)
    site.aggregator("run", "--require-sealed", task=task).ends_well()
    undisturbed(site, "run", 3)
    parts = [payload for topic, payload in heard(observer) if topic.startswith("fl/updates/")]
    assert sum(len(part) > 500_000 for part in parts) >= 3 * 2 * 9
    assert all(codec.is_sealed(part) for part in parts)


def test_an_aggregator_takes_both_if_nothing_is_required(site: Site) -> None:
    site.edge("0", "--seal")
    site.edge("1")
    site.aggregator("run").ends_well()
    undisturbed(site, "run", 3)
