"""A site for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.provisioned_broker import ProvisionedBroker, provisioned
from tests.support.provisioned_site import FORGER, Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    wanted = [("0", ("train",)), ("1", ("train",)), ("forger", ("asker",))]
    made = provisioned(tmp_path / "kits", wanted)  # type: ignore[arg-type]
    with ProvisionedBroker(made, extra_acl=FORGER) as broker:
        here = Site(tmp_path, made, broker)
        yield here
        here.close()
