"""Options in the environment that are misspelt."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from fl_aggregator.cli.main import cli as fl_aggregator
from fl_aggregator.cli.survey import survey
from fl_edge.cli import command as fl_edge
from fl_edge.tools.task_commands import check_task, new_task
from fl_shared.cli.environment import misspelt_options
from fl_shared.cli.request_kit import request_kit_command


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


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    for name, below in (command.commands if isinstance(command, click.Group) else {}).items():
        yield from _commands(f"{path} {name}", below)


COMMANDS = [
    *_commands("fl-aggregator", fl_aggregator),
    ("fl-edge", fl_edge),
    ("fl-edge new-task", new_task),
    ("fl-edge check-task", check_task),
    ("fl-edge request-kit", request_kit_command("edge")),
]
NOT_FROM_THE_ENVIRONMENT = {"provision --password", "provision rotate --broker"}
"""FL_PASSWORD and FL_BROKER mean something else, in every command."""


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_the_variable_of_every_option_follows_from_its_name(path: str, command: click.Command) -> None:
    context = click.Context(command, **command.context_settings)
    if context.auto_envvar_prefix is None:
        return
    for option in command.get_params(context):
        if not isinstance(option, click.Option) or (option.is_eager and option.is_flag):
            continue
        written = next(name for name in option.opts if name.startswith("--"))
        if f"{path} {written}".removeprefix("fl-aggregator ") in NOT_FROM_THE_ENVIRONMENT:
            assert option.envvar is None
            continue
        variable = "FL_" + written.removeprefix("--").replace("-", "_").upper()
        assert option.envvar == variable
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(variable, "1")
            assert option.value_from_envvar(context) not in (None, ())
        named = misspelt_options(context, {variable: "1"})
        assert named == [], "an option is no misspelt one"


def test_variables_of_parameters_are_misspelt_ones() -> None:
    context = click.Context(survey, auto_envvar_prefix="FL")
    assert misspelt_options(context, {"FL_RANGES": "a=0:1"}) == [("FL_RANGES", "FL_RANGE")]


def test_it_is_a_warning() -> None:
    said = CliRunner().invoke(fl_edge, [], env={"FL_SEEL": "1"}, prog_name="fl-edge").stderr
    assert said.startswith(
        "fl-edge: warning: FL_SEEL has no effect, since there is no such option; did you mean FL_SEAL?\n"
    )
    assert "warning" not in CliRunner().invoke(fl_edge, [], env={"FL_SEAL": "1"}, prog_name="fl-edge").stderr
