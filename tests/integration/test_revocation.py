"""An edge that is revoked while it is selected: the round does without it, once the aggregator or the broker knows."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fl_edge.training.synthetic_executor import SyntheticExecutor
from fl_shared.protocol import messages as m
from fl_shared.security.revocations import FILE_NAME
from tests.support import programs
from tests.support.client import Client, Endpoint
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned
from tests.support.provisioned_site import FORGER, VALUES, Site
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

NAMES = REVOKED, HELD, LAST = ("0", "1", "2")


def first_weights(directory: Path) -> Path:
    """Then no edge has to make them, and the first round is open when the last edge is there."""
    path = directory / "first.safetensors"
    manifest = SyntheticExecutor(VALUES).initial_weights(0, lambda values: np.empty(values, "<f4"))
    arrays = {array.name: np.zeros(array.shape, np.float32) for array in manifest.arrays}
    save_file(arrays, path, {"buffers": "[]"})
    return path


def is_registered(edge: programs.Program) -> bool:
    return "registered for run" in edge.err


@pytest.mark.parametrize(
    "passwords",
    [pytest.param(False, id="certificates"), pytest.param(True, id="passwords", marks=pytest.mark.long)],
)
def test_a_revoked_edge_does_not_hold_up_the_round(tmp_path: Path, stack: ExitStack, passwords: bool) -> None:
    """The deadline is longer than any test: only the loss of the edge lets the round go on.

    The aggregator has no list of revoked kits: only the broker knows.
    """
    made = provisioned(
        tmp_path / "kits",
        [*((name, ("train",)) for name in NAMES), ("forger", ("asker",))],
        passwords=passwords,
    )
    (made.out / FILE_NAME).unlink()
    broker = stack.enter_context(ProvisionedBroker(made, extra_acl=FORGER))
    site = Site(tmp_path, made, broker)
    stack.callback(site.close)
    observer = stack.enter_context(Client(Endpoint.of(kit_of(made, "forger")), "fl/#", reconnect=True))
    # With a grace of 0, the wills that a broker sends when it is stopped would count at once, those of the others too.
    settings = ("--clients", "3", "--per-round", "3", "--quorum", "2", "--grace", "2", "--deadline", "86400")
    run = site.aggregator("run", *settings, "--init", str(first_weights(tmp_path)), rounds=2)
    edges = {name: site.edge(name) for name in (REVOKED, HELD)}
    for edge in edges.values():
        wait_until(partial(is_registered, edge), 60, "the edges whose training is held")
        held = programs.workers(edge)
        stack.callback(programs.thaw, *held)  # else the revoked edge's workers outlive it
        programs.freeze(*held)
    site.edge(LAST)
    observer.wait_for_message(m.Selected, 60, round=1)
    made.revoke([REVOKED])
    (made.out / FILE_NAME).unlink()
    broker.restart()
    programs.thaw(*programs.workers(edges[HELD]))
    run.ends_well()
    lines = programs.history(tmp_path / "run")
    assert [line["outcome"] for line in lines] == ["committed"] * 2
    assert [line["participants"] for line in lines] == [[HELD, LAST]] * 2
    assert lines[0]["missing"][REVOKED].startswith("offline")


def test_the_aggregator_refuses_a_revoked_kit_though_the_broker_does_not_know(
    tmp_path: Path, stack: ExitStack
) -> None:
    """The broker is not restarted, or its operator keeps the edge's rights: the running aggregator reads the list."""
    made = provisioned(tmp_path / "kits", [*((name, ("train",)) for name in NAMES), ("forger", ("asker",))])
    broker = stack.enter_context(ProvisionedBroker(made, extra_acl=FORGER))
    site = Site(tmp_path, made, broker)
    stack.callback(site.close)
    observer = stack.enter_context(Client(Endpoint.of(kit_of(made, "forger")), "fl/#", reconnect=True))
    settings = (
        "--clients",
        "3",
        "--per-round",
        "3",
        "--quorum",
        "2",
        "--grace",
        "3600",
        "--deadline",
        "86400",
    )
    weights = str(first_weights(tmp_path))
    run = site.aggregator("run", *settings, "--init", weights, "--require-sealed", rounds=2)
    revoked = site.edge(REVOKED, "--seal")
    wait_until(partial(is_registered, revoked), 60, "the edge whose training is held")
    held = programs.workers(revoked)
    stack.callback(programs.thaw, *held)
    programs.freeze(*held)
    for name in (HELD, LAST):
        site.edge(name, "--seal")
    observer.wait_for_message(m.Selected, 60, round=1)
    made.revoke([REVOKED])
    run.ends_well()
    lines = programs.history(tmp_path / "run")
    assert [line["outcome"] for line in lines] == ["committed"] * 2
    assert [line["participants"] for line in lines] == [[HELD, LAST]] * 2
    assert lines[0]["missing"] == {
        REVOKED: "offline: its kit was revoked, expected a new one: fl-aggregator provision add"
    }
    programs.thaw(*held)
    assert revoked.wait(30) == 2
    assert "kit-revoked" in revoked.err
