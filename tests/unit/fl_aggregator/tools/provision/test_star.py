"""`provision --brokers`: the files of bridged brokers."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_aggregator.tools.provision.bridges import bridged_topics
from fl_shared.protocol.channels import CHANNELS
from fl_shared.security.kit import Kit
from tests.support.provisioning import certificate, provision

STAR = ("--edges", "2", "--out", "k", "--brokers", "hub.example,b.example,C=10.1.2.3")


def test_each_broker_gets_its_files_and_the_bridged_ones_a_bridge(tmp_path: Path) -> None:
    done = provision(*STAR, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    hub, b, c = (tmp_path / "k" / name for name in ("broker", "broker-b", "broker-C"))
    assert "bridge" not in (hub / "mosquitto.conf").read_text()
    for name, directory in (("b", b), ("C", c)):
        for file in ("mosquitto.conf", "mosquitto-2.1.conf"):
            lines = (directory / file).read_text().splitlines()
            after = lines[lines.index(f"connection {name}") :]
            assert "address hub.example:8883" in after
            assert f"bridge_certfile {directory}/bridge.pem" in after
            assert f"notification_topic fl/brokers/{name}" in after
        own = certificate((directory / "bridge.pem").read_bytes())
        assert own.subject.rfc4514_string() == f"CN=bridge-{name}"
        for same in ("broker.pem", "broker.key", "acl", "ca.pem", "crl.pem"):
            assert (directory / same).read_bytes() == (hub / same).read_bytes(), same
    acl = (hub / "acl").read_text()
    of_b = acl.partition("user bridge-b\n")[2].partition("\n\n")[0].splitlines()
    assert "topic write fl/updates/#" in of_b
    assert "topic read fl/predict" in of_b
    assert "topic readwrite fl/round/#" in of_b
    assert "topic write fl/brokers/b" in of_b
    assert Kit.read(tmp_path / "k" / "edge-1.zip").broker == "mqtts://hub.example:8883"


def test_accounts_of_bridges_change_as_others_do(tmp_path: Path) -> None:
    provision(*STAR, cwd=tmp_path)
    file = tmp_path / "k" / "broker-b" / "bridge.pem"
    before = file.read_bytes()
    done = provision("rotate", "bridge-b", "--force", "--out", "k", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() != before
    assert f"of broker C: {Path('k') / 'broker-C'}" in done.stdout
    done = provision("revoke", "bridge-b", "--out", "k", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not file.exists()
    assert "user bridge-b" not in (tmp_path / "k" / "broker" / "acl").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--brokers hub", "expected at least two, the hub first"),
        ("--brokers hub,b.x,b.y", "'b' is the name of two brokers; expected NAME=HOST"),
        ("--brokers hub,b=x_y", "'x_y': expected a host name or an address"),
        ("--brokers hub,a+b=x", "--brokers 'a+b': expected 1 to 64 characters"),
        ("--brokers hub,b --password", "--brokers cannot be combined with --password"),
        ("--brokers hub,b --broker-host hub", "--brokers cannot be combined with --broker-host"),
    ],
)
def test_mistakes(tmp_path: Path, words: str, said: str) -> None:
    done = provision("--edges", "1", *words.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert not any(tmp_path.iterdir())


def test_every_row_crosses_and_updates_only_towards_the_aggregator() -> None:
    directions = dict(bridged_topics("fl"))
    assert directions["fl/updates/#"] == directions["fl/register/#"] == directions["fl/control"] == "out"
    assert directions["fl/model/#"] == directions["fl/clients/+/presence"] == "both"
    assert (directions["fl/predict"], directions["fl/predict/+"]) == ("in", "both"), "no request goes round"
    for row in CHANNELS.rows:
        first = row.topic.PATTERN.partition("/")[0]
        assert any(name.split("/")[1] == first for name in directions) is (row.sender != "bridge"), row
