"""A broker that has the old key after ``provision rotate --broker``, as the thief of that key has."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_aggregator.tools.provision.kits import Provision
from fl_shared.mqtt.paho.compatibility import STOCK_ENV
from fl_shared.security.kit import Kit
from tests.support.client import Client, Endpoint
from tests.support.programs import Program
from tests.support.provisioned_broker import ProvisionedBroker, kit_of, provisioned

pytestmark = pytest.mark.broker


def with_new_broker(made: Provision) -> Kit:
    """The new kit of edge 0, after the broker's key was replaced."""
    made.rotate([one.name for one in made.register.accounts], force=True, new_broker=True)
    return kit_of(made, "0")


@pytest.mark.parametrize(
    ("passwords", "stock_paho"),
    [
        pytest.param(False, "", id="certificates-fast"),
        pytest.param(True, "1", id="passwords-stock"),
        pytest.param(False, "1", id="certificates-stock", marks=pytest.mark.long),
        pytest.param(True, "", id="passwords-fast", marks=pytest.mark.long),
    ],
)
def test_it_is_sent_nothing(
    tmp_path: Path, passwords: bool, stock_paho: str, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    monkeypatch.setenv(STOCK_ENV, stock_paho)
    made = provisioned(tmp_path / "kits", [("0", ("train",))], passwords=passwords)
    with ProvisionedBroker(made) as broker:
        new = with_new_broker(made)
        started = [
            stack.enter_context(Program(tmp_path / account, *command, "--kit", str(made.out / kit)))
            for account, kit, *command in (
                ("0", "edge-0.zip", "fl-edge", "--task", "synthetic-5000"),
                ("operator", "operator.zip", "fl-aggregator", "status"),
            )
        ]
        for program in started:
            assert program.wait(30) == 2, program.output
            said = "the broker has another key than the kit expects; nothing was sent to it"
            assert program.err.count(said) == 1, program.output
        assert "New connection" in broker.log()
        assert "New client connected" not in broker.log(), "it never received CONNECT"
        assert "not authorised" not in broker.log()
        broker.restart()
        with Client(Endpoint.of(new)) as client:
            assert client.publish("fl/updates/0") < 0x80
