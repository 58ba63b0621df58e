"""A masked run with kits: the keys of all members are certified, and edges take part in nothing else."""

from __future__ import annotations

import json

import pytest

from tests.support.provisioned_site import Site, rounds

pytestmark = pytest.mark.broker

EDGES = ("0", "1", "2", "3")


@pytest.mark.parametrize("site", [EDGES], indirect=True, ids=["four edges"])
def test_edges_that_require_masks_train_with_certified_members(site: Site) -> None:
    """P4 and P19 in docs/privacy.md; 10.1 with certificates."""
    for name in EDGES:
        site.edge(name, "--require-masked", "3,1")
    run = site.aggregator("run", "--clients", "4", "--per-round", "4", "--masked", "--masked-min", "3")
    run.ends_well()
    lines = rounds(site, "run")
    assert [(line["outcome"], line["masked"]) for line in lines] == [("committed", True)] * 3
    assert all(line["participants"] == list(EDGES) for line in lines)
    record = json.loads((site.directory / "run" / "run" / "run.json").read_text())
    assert record["certified"] is True
    assert "not certified" not in run.err + run.out


def test_edges_that_require_masks_send_nothing_in_a_plain_run(site: Site) -> None:
    """P19: they say why."""
    for name in ("0", "1"):
        site.edge(name, "--require-masked", "3,1")
    run = site.aggregator("run", "--wait", "10", rounds=1)
    assert run.wait() == 1
    assert "this edge trains in masked rounds only (--require-masked)" in run.err
    lines = rounds(site, "run")
    assert all(line["outcome"] == "abandoned" for line in lines)
