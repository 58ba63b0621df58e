"""A site for each test, with two edges, or those that the test is parametrized with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.provisioned_broker import ProvisionedBroker, provisioned
from tests.support.provisioned_site import FORGER, Site


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    edges = getattr(request, "param", ("0", "1"))
    wanted = [*((name, ("train",)) for name in edges), ("forger", ("asker",))]
    made = provisioned(tmp_path / "kits", wanted)  # type: ignore[arg-type]
    with ProvisionedBroker(made, extra_acl=FORGER) as broker:
        here = Site(tmp_path, made, broker)
        yield here
        here.close()
