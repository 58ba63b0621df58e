"""Encoded updates that are sealed: what is encoded is what is sealed (protocol, 3.1 and 9.10)."""

from __future__ import annotations

import pytest

from tests.support.provisioned_site import Site, rounds, undisturbed

pytestmark = pytest.mark.broker


@pytest.mark.parametrize(
    "options",
    [
        ("--encoding", "topk:0.1", "--model-encoding", "bf16"),
        pytest.param(("--encoding", "shuffle-deflate"), marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_sealed_updates_in_an_encoding(site: Site, options: tuple[str, ...]) -> None:
    for name in ("0", "1"):
        site.edge(name, "--seal")
    site.aggregator("run", "--require-sealed", *options).ends_well()
    undisturbed(site, "run", 3)
    assert [line["encoding"] for line in rounds(site, "run")] == [options[1]] * 3
