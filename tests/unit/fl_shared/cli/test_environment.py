"""Options in the environment that are misspelt."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from fl_edge.cli import command as fl_edge
from fl_shared.cli.environment import misspelt_options


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FL_SEEL", "FL_SEAL"),
        ("FL_SAEL", "FL_SEAL"),
        ("FL_SEALS", "FL_SEAL"),
        ("FL_WORKER", "FL_WORKERS"),
        ("FL_KEEP_ALIVE", "FL_KEEPALIVE"),
        ("FL_STATEDIR", "FL_STATE_DIR"),
        ("FL_IDS", "FL_ID"),
        ("FL_ROLES", "FL_ROLE"),
        ("FL_PASWORD", "FL_PASSWORD"),
    ],
)
def test_one_slip_is_noticed(name: str, meant: str) -> None:
    assert misspelt_options(click.Context(fl_edge, auto_envvar_prefix="FL"), {name: "1"}) == [(name, meant)]


@pytest.mark.parametrize(
    "name",
    [
        "FL_SEAL",
        "FL_ID",
        "FL_PASSWORD",
        "SEEL",
        "FL_SEED",
        "FL_REQUIRE_SEALED",
        "FL_IP",
        "FL_KEEP_LOCAL",
        "FL_KEYS",
    ],
)
def test_options_and_those_of_other_programs_are_left_alone(name: str) -> None:
    assert misspelt_options(click.Context(fl_edge, auto_envvar_prefix="FL"), {name: "1"}) == []


def test_it_is_a_warning() -> None:
    said = CliRunner().invoke(fl_edge, [], env={"FL_SEEL": "1"}, prog_name="fl-edge").stderr
    assert said.startswith(
        "fl-edge: warning: FL_SEEL has no effect, since there is no such option; did you mean FL_SEAL?\n"
    )
    assert "warning" not in CliRunner().invoke(fl_edge, [], env={"FL_SEAL": "1"}, prog_name="fl-edge").stderr
