"""``fl-aggregator strategies``."""

from __future__ import annotations

import json

from click.testing import CliRunner

from fl_aggregator.cli.main import cli


def ask(*arguments: str) -> str:
    ended = CliRunner().invoke(cli, ["strategies", *arguments])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_all_are_listed_with_their_fields() -> None:
    text = ask()
    assert "  fedadam           Adam at the aggregator\n" in text
    assert "  krum              bad=…, keep=None\n" in text
    assert "  trimmed-mean      beta=0.2\n" in text


def test_one_is_described_with_its_paper_and_the_fields_of_its_parts() -> None:
    text = ask("multi-krum")
    assert "--combine krum --server-optimizer sgd" in text
    assert "Blanchard et al. 2017" in text
    assert "lr=1.0, momentum=0.0" in text


def test_for_programs() -> None:
    found = json.loads(ask("--json", "fedyogi"))
    assert found["server-optimizer"]["yogi"]["fields"] == {
        "lr": 0.01, "beta1": 0.9, "tau": 0.001, "beta2": 0.99,
    }  # fmt: skip
    assert json.loads(ask("--json")).keys() == {
        "strategy", "combine", "server-optimizer", "transform", "correct",
    }  # fmt: skip


def test_an_unknown_name_is_the_users_mistake() -> None:
    ended = CliRunner().invoke(cli, ["strategies", "kurm"])
    assert "'kurm': is no strategy and no part" in str(ended.exception)
