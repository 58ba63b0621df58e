"""``fl-aggregator strategies``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from fl_aggregator.cli.main import cli
from tests.support.schemas import checked


def ask(*arguments: str) -> str:
    ended = CliRunner().invoke(cli, ["strategies", *arguments])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_all_are_listed_with_their_fields() -> None:
    text = ask()
    assert "  fedadam           Adam at the aggregator\n" in text
    assert "  krum              bad=…, [keep]\n" in text
    assert "  normalized        momentum=--momentum\n" in text
    assert "  trimmed-mean      beta=0.2\n" in text


def test_one_is_described_with_its_paper_and_the_fields_of_its_parts() -> None:
    text = ask("multi-krum")
    assert "--combine krum --server-optimizer sgd" in text
    assert "Blanchard et al. 2017" in text
    assert "lr=1.0, momentum=0.0" in text
    assert "(lr above 0, at most 1e+06; momentum at least 0, below 1)" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("fedavgm", "sgd               lr=0.1, momentum=0.9"),
        ("krum", "krum              bad=…, keep=1"),
        ("q-fedavg", "fair              lr=--lr, q=0.1"),
    ],
)
def test_the_defaults_of_a_strategy_are_those_that_it_has(name: str, shown: str) -> None:
    assert shown in ask(name)


def test_for_programs() -> None:
    found = checked("fl-aggregator strategies", ask("--json", "fedyogi"))
    assert found["strategy"]["fedyogi"]["paper"] == "Reddi et al. 2021, arXiv:2003.00295"
    fields = found["server-optimizer"]["yogi"]["fields"]
    assert {name: field["default"] for name, field in fields.items()} == {
        "lr": 0.01, "beta1": 0.9, "tau": 0.001, "beta2": 0.99,
    }  # fmt: skip
    assert fields["beta1"] == {
        "type": "number", "default": 0.9, "minimum": 0, "exclusiveMaximum": 1, "required": False,
        "description": "how much of m and v stays",
    }  # fmt: skip
    assert checked("fl-aggregator strategies", ask("--json")).keys() == {
        "strategy", "combine", "server-optimizer", "transform", "correct",
    }  # fmt: skip


def test_every_part_has_its_paper_and_says_what_its_fields_mean() -> None:
    for kind, members in checked("fl-aggregator strategies", ask("--json")).items():
        for name, member in members.items():
            paper = member.get("paper", member.get("description"))
            assert re.search(r"et al\. 20\d\d", paper), f"{kind} {name}"
            for field, schema in member.get("fields", {}).items():
                assert schema["description"], f"{kind} {name}: {field}"
                assert schema["required"] or "default" in schema or "from" in schema, (
                    f"{kind} {name}: {field}"
                )


def test_a_broken_package_hides_no_other_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_lion.py").write_text("raise ValueError('no licence')")
    info = tmp_path / "broken_lion-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-lion\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fl_mqtt.server_optimizers]\nlion = broken_lion:Lion\n")
    monkeypatch.syspath_prepend(tmp_path)
    ended = CliRunner().invoke(cli, ["strategies", "--json"])
    assert ended.exit_code == 0
    assert {"sgd", "adam"} <= checked("fl-aggregator strategies", ended.stdout)["server-optimizer"].keys()
    said = "--server-optimizer 'lion': cannot be imported: ValueError: no licence"
    assert ended.stderr == f"fl-aggregator strategies: {said}\n"
    assert said in str(CliRunner().invoke(cli, ["strategies", "lion"]).exception)


def test_an_unknown_name_is_the_users_mistake() -> None:
    ended = CliRunner().invoke(cli, ["strategies", "kurm"])
    assert "'kurm': is no strategy and no part" in str(ended.exception)
