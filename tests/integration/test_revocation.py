"""An edge that is revoked while it is selected: once the broker is restarted, the round does without it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.client import Client, Endpoint
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned
from tests.support.provisioned_site import FORGER, Site

pytestmark = [pytest.mark.broker, pytest.mark.edge]

NAMES = ("0", "1", "2")


@pytest.mark.parametrize("passwords", [False, True], ids=["certificates", "passwords"])
def test_a_revoked_edge_does_not_hold_up_the_round(tmp_path: Path, stack: ExitStack, passwords: bool) -> None:
    """The deadline is longer than any test: only the loss of the edge lets the round go on."""
    made = provisioned(
        tmp_path / "kits",
        [*((name, ("train",)) for name in NAMES), ("forger", ("asker",))],
        passwords=passwords,
    )
    broker = stack.enter_context(ProvisionedBroker(made, extra_acl=FORGER))
    site = Site(tmp_path, made, broker)
    stack.callback(site.close)
    observer = stack.enter_context(Client(Endpoint.of(kit_of(made, "forger")), "fl/#", reconnect=True))
    edges = {name: site.edge(name) for name in NAMES}

    def hold() -> None:
        for edge in edges.values():
            programs.freeze(*programs.workers(edge))

    held = observer.when_message(hold, m.Selected, round=1)
    # With a grace of 0, the wills that a broker sends when it is stopped would count at once, those of the others too.
    settings = ("--clients", "3", "--quorum", "2", "--grace", "2", "--deadline", "86400")
    run = site.aggregator("run", *settings, rounds=2)
    assert held.wait(60), run.output
    selected = observer.all(m.Selected, round=1)[-1]
    assert selected.cohort is not None
    revoked, *others = selected.cohort
    made.revoke([revoked])
    broker.restart()
    for name in set(NAMES) - {revoked}:
        programs.thaw(*programs.workers(edges[name]))
    run.ends_well()
    lines = programs.history(tmp_path / "run")
    assert [line["outcome"] for line in lines] == ["committed"] * 2
    assert all(revoked not in line["participants"] for line in lines)
    assert lines[0]["missing"][revoked].startswith("offline")
    assert set(others) <= set(lines[0]["participants"])
