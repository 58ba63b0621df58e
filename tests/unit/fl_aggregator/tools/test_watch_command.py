"""The command that ``start`` prints can be pasted into another terminal."""

from __future__ import annotations

from pathlib import Path

from fl_aggregator.tools.remote.cli import watch_command
from fl_shared.cli.broker_access import BrokerAccess, BrokerOptions
from fl_shared.mqtt.address import BrokerAddress


def test_it_names_files_where_they_are(tmp_path: Path) -> None:
    access = BrokerAccess(BrokerAddress("broker.example"))
    assert (
        watch_command(access, "fl", BrokerOptions())
        == "fl-aggregator watch --broker mqtt://broker.example:1883"
    )
    command = watch_command(access, "lab/x", BrokerOptions(ca=Path("my ca.pem")))
    assert command.endswith("--ca 'my ca.pem' --prefix lab/x")
    command = watch_command(access, "fl", BrokerOptions(cert=Path("a.pem"), password_file=Path("secret")))
    assert command.endswith("--cert a.pem --password-file secret")
    kit = tmp_path / "my kits" / "aggregator.zip"
    kit.parent.mkdir()
    assert "operator's kit" in watch_command(access, "fl", BrokerOptions(kit=kit)), "it is on another machine"
    (kit.parent / "operator.zip").touch()
    assert watch_command(access, "fl", BrokerOptions(kit=kit)) == (
        f"fl-aggregator watch --kit '{tmp_path}/my kits/operator.zip'"
    )
