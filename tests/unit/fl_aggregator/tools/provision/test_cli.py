"""`fl-aggregator provision` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fl_shared.security.kit import Kit
from tests.support.command_line import everything, is_one_clear_line, run_here
from tests.support.provisioning import (
    check_whole,
    provision,
)


def test_the_whole_story_on_the_command_line(tmp_path: Path) -> None:
    # These name the broker for the other commands, and mean nothing here.
    shell = {"FL_PASSWORD": "x", "FL_BROKER": "mqtt://localhost", "FL_PREDICT": "none"}
    done = provision(
        "--edges", "3", "--out", "k", "--broker-host", "broker.example", "--broker-host", "::1",
        "--prefix", "plant7/fl", "--predict", "0,2", "--evaluate", "all", "--askers", "web,phone",
        "--broker-port", "8884", cwd=tmp_path, **shell,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = tmp_path / "k"
    check_whole(out)
    edge = Kit.read(out / "edge-2.zip")
    assert edge.roles == ("train", "evaluate", "predict")
    assert (edge.broker, edge.prefix) == ("mqtts://broker.example:8884", "plant7/fl")
    assert Kit.read(out / "edge-1.zip").roles == ("train", "evaluate")
    assert Kit.read(out / "asker-phone.zip").roles == ("asker",)
    for then, words in (
        ("kill -HUP", ("add", "ward-3", "ward-4", "--predict", "ward-4", "--region", "ward-4", "--out", "k")),
        ("kill -HUP", ("add", "kiosk", "--asker", "--out", "k")),
        ("restart it", ("rotate", "0", "--aggregator", "--out", "k", "--force")),
        ("restart it", ("rotate", "--broker", "--out", "k", "--force")),
        ("restart it", ("revoke", "ward-3", "phone", "--out", "k")),
        ("restart it", ("rotate", "--all", "--force", "--out", "k")),
    ):
        done = provision(*words, cwd=tmp_path, **shell)
        assert done.returncode == 0, done.stderr
        assert then in done.stdout
        check_whole(out)
    assert Kit.read(out / "edge-ward-4.zip").roles == ("train", "predict", "region")
    register = json.loads((out / "accounts.json").read_text())
    names = [account["name"] for account in register["accounts"]]
    assert names == ["aggregator", "operator", "0", "1", "2", "ward-4", "kiosk", "web"]
    said = done.stdout + done.stderr
    assert "PRIVATE" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "--edges is missing"),
        ("--edges 2", "--broker-host is missing"),
        ("--edges -1 --broker-host b", "--edges"),
        ("--edges 2 --broker-host a_b", "--broker-host 'a_b': expected a host name or an address"),
        ("--edges 2 --broker-host b --broker-port 0", "--broker-port"),
        ("--edges 2 --broker-host b --prefix fl/#", "--prefix"),
        ("--edges 2 --broker-host b --predict 2", "--predict '2': not one of the edges to create"),
        ("--edges 2 --broker-host b --predict 0,,1", "--predict '': expected 1 to 64"),
        ("--edges 2 --broker-host b --train none", "edge '0' would have no role"),
        ("--edges 2 --broker-host b --train 0 --evaluate 1 --region 1", "--region '1': its sums are updates"),
        ("--edges 2 --broker-host b --askers operator", "this name is reserved for the operator"),
        ("--edges x --broker-host b", "--edges"),
        ("--edges 100001 --broker-host b", "--edges"),
        ("--edges 2 --broker-host ", "--broker-host': '' is empty"),
        ("--edges 2 --broker-host mqtts://b", "--broker-host 'mqtts://b': expected a host name"),
        ("--edges 2 --broker-host b:8883", "--broker-host 'b:8883': expected a host name"),
        ("--edges 2 --broker-host b --broker-port 65536", "--broker-port"),
        ("--edges 2 --broker-host b --train ", "--train': '' is empty"),
        ("--edges 2 --broker-host b --evaluate all,0", "--evaluate 'all': not one of the edges"),
        ("--edges 2 --broker-host b --askers 1", "account '1' is given twice"),
        ("--edges 2 --broker-host b --askers web,web", "account 'web' is given twice"),
        ("--edges 2 --broker-host b --askers a/b", "--askers 'a/b': expected 1 to 64"),
        ("--edges 2 --broker-host b --askers all", "--askers 'all': an asker has a name of its own"),
        ("--edges 2 --broker-host b --days 7001", "--days"),
        ("--edges 2 --broker-host b --out ", "--out': '' is empty"),
        ("--edges 2 --broker-host b --out taken/kits", "--out taken/kits: Not a directory"),
        ("--edges 2 --broker-host b --broker-dir etc", "--broker-dir 'etc': expected an absolute path"),
        ("--edges 2 --broker-host b --days 0", "--days"),
        ("--edges 2 --broker-host b --out taken", "taken"),
        ("--prefix x add 3", "--prefix before add: expected after it"),
        ("add 3", "contains no accounts.json; start with"),
        ("add a/b", "edge 'a/b': expected 1 to 64"),
        ("add aggregator", "this name is reserved for the aggregator"),
        ("add", "nothing to add: expected ID…, or --request FILE"),
        ("add --request nowhere", "nowhere"),
        ("add --request taken", "request taken: "),
        ("add ", "'' is empty"),
        ("add 3 3 --out taken", "taken"),
        ("create", "Did you mean 'rotate'? (help: fl-aggregator provision --help)"),
        ("revoke 3 --out nowhere", "nowhere"),
        ("rotate", "nothing to rotate"),
        ("rotate --all 3", "--all and --broker renew all accounts: expected no account names"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_and_makes_nothing(
    tmp_path: Path, words: str, said: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    done = run_here(tmp_path, ("fl-aggregator", "provision", *(words.split(" ") if words else ())), {})
    is_one_clear_line(done, said)
    assert everything(tmp_path) == ["taken"]
