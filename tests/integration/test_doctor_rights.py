"""``fl-aggregator doctor`` with the kits and ACLs of a provisioned broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.examined_broker import Examined
from tests.support.provisioned_broker import ProvisionedBroker, provisioned

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("account", ["aggregator", pytest.param("operator", marks=pytest.mark.long), "0"])
def test_with_the_kits_of_a_provisioned_broker(tmp_path: Path, account: str) -> None:
    made = provisioned(tmp_path / "kits", [("0", ("train",))], prefix="plant/fl")
    kit = made.out / ("edge-0.zip" if account == "0" else f"{account}.zip")
    with ProvisionedBroker(made):
        seen = Examined(tmp_path / "doctor", "--kit", str(kit))
    assert seen.report["prefix"] == "plant/fl"
    assert seen.verdicts("missing") == [], seen.output
    assert seen.code == 0, seen.output
    if account == "0":
        assert list(seen.findings) == ["connection", "limits", "rights", "run"]
        assert seen.report["verdict"] == "this edge can take part in a run"
        assert "plant/fl/replies/0" in seen.measured("rights")["unproved"]
        return
    assert seen.verdicts("untested") == (["rights"] if account == "operator" else []), seen.output
    if account == "aggregator":
        # All else that others write it may write as well, to clear what strangers retain there. So it shows by itself
        # that it hears it.
        assert seen.measured("rights")["unproved"] == []


@pytest.mark.parametrize(
    ("before", "after", "forbidden"),
    [
        (
            "topic readwrite fl/model/#\n",
            "",
            ["write fl/model", "write fl/model/+/manifest", "write fl/model/+/+"],
        ),
        (
            "topic readwrite fl/round/#\n",
            "topic write fl/round/#\n",
            [f"read fl/round/+/{leaf}" for leaf in ("selected", "missing", "edges", "result")],
        ),
        ("topic write fl/replies/+\n", "", ["write fl/replies/+"]),
    ],
)
@pytest.mark.long
def test_an_acl_that_forbids_what_an_aggregator_needs(
    tmp_path: Path, before: str, after: str, forbidden: list[str]
) -> None:
    made = provisioned(tmp_path / "kits", [("0", ("train",))], passwords=True)
    acl = made.broker_directory / "acl"
    head, user, rest = acl.read_text().partition("user aggregator\n")
    assert before in rest
    acl.write_text(head + user + rest.replace(before, after, 1))
    with ProvisionedBroker(made):
        seen = Examined(tmp_path / "doctor", "--kit", str(made.out / "aggregator.zip"))
    assert (seen.code, seen.verdicts("missing")) == (1, ["rights"]), seen.output
    assert seen.measured("rights")["forbidden"] == forbidden


@pytest.mark.parametrize(
    ("line", "forbidden"),
    [
        ("topic write fl/register/0\n", "write fl/register/0"),
        pytest.param("topic write fl/updates/0\n", "write fl/updates/0", marks=pytest.mark.long),
        pytest.param(
            "topic readwrite fl/clients/0/presence\n", "write fl/clients/0/presence", marks=pytest.mark.long
        ),
    ],
)
def test_an_acl_that_forbids_what_an_edge_needs(tmp_path: Path, line: str, forbidden: str) -> None:
    made = provisioned(tmp_path / "kits", [("0", ("train",))], passwords=True)
    acl = made.broker_directory / "acl"
    head, user, rest = acl.read_text().partition("user 0\n")
    assert line in rest
    acl.write_text(head + user + rest.replace(line, "", 1))
    with ProvisionedBroker(made):
        seen = Examined(tmp_path / "doctor", "--kit", str(made.out / "edge-0.zip"))
    assert (seen.code, seen.verdicts("missing")) == (1, ["rights"]), seen.output
    assert seen.measured("rights")["forbidden"] == [forbidden]
    assert seen.report["verdict"].startswith("this edge cannot take part in a run: ")
