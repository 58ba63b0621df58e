"""Edges whose private keys never left their devices take part in a run that takes only sealed messages."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.provisioned_broker import ProvisionedBroker, provisioned
from tests.support.provisioned_site import Site, undisturbed
from tests.support.provisioning import provision

pytestmark = [pytest.mark.broker, pytest.mark.edge]

NAMES = ("0", "1")


def test_edges_with_requested_kits_train(tmp_path: Path, stack: ExitStack) -> None:
    made = provisioned(tmp_path / "kits", [])
    requests: list[str] = []
    for name in NAMES:
        device = tmp_path / f"device-{name}"
        device.mkdir()
        done = programs.run("fl-edge", "request-kit", name, cwd=device)
        assert done.returncode == 0, done.stderr
        requests += ["--request", str(device / f"edge-{name}.request")]
    done = provision("add", *requests, "--out", "kits", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    broker = stack.enter_context(ProvisionedBroker(made))
    site = Site(tmp_path, made, broker)
    stack.callback(site.close)
    run = site.aggregator("run", "--require-sealed", rounds=2)
    for name in NAMES:
        kit = tmp_path / f"device-{name}" / f"edge-{name}.zip"
        shutil.copy(tmp_path / "kits" / kit.name, kit)
        more = ("--task", "synthetic-5000", "--state-dir", str(tmp_path / f"state-{name}"), "--seal")
        site.program(f"edge-{name}", "fl-edge", "--kit", str(kit), *more)
    run.ends_well()
    undisturbed(site, "run", 2)
