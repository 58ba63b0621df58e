"""The JSON Schemas in ``docs/schema`` are valid, complete, and what the code makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from fl_aggregator.cli.main import cli as fl_aggregator
from fl_edge.cli import command as fl_edge
from fl_mqtt.cli.main import cli as fl_mqtt
from fl_shared.protocol.channels import CHANNELS, kind_of
from scripts import schemas
from scripts.outputs import OUTPUTS
from tests.support.programs import RESULTS
from tests.support.schemas import SCHEMAS, validator
from tests.support.vectors import chunks, messages

MADE = schemas.schemas()
TESTS = Path(__file__).parents[1]
MESSAGES = messages.vectors()


@pytest.mark.parametrize("path", MADE)
def test_the_file_is_what_the_code_makes(path: str) -> None:
    assert (SCHEMAS / path).read_text(encoding="utf-8") == schemas.render(MADE[path]), (
        "python -m scripts.schemas"
    )
    jsonschema.Draft202012Validator.check_schema(MADE[path])


def test_there_is_no_other_file() -> None:
    assert {str(path.relative_to(SCHEMAS)) for path in SCHEMAS.rglob("*.json")} == MADE.keys()


@pytest.mark.parametrize("name", MESSAGES)
def test_the_golden_messages_validate(name: str) -> None:
    content = MESSAGES[name]["content"]
    kind = content["kind"]
    validator(f"messages/{kind}.json").validate(content)
    for broken in (
        content | {"v": 1},
        content | {"kind": "other"},
        {key: value for key, value in content.items() if key != "v"},
    ):
        assert not validator(f"messages/{kind}.json").is_valid(broken)


def test_every_member_of_a_message_is_in_its_schema() -> None:
    for model in CHANNELS.kinds:
        schema = MADE[f"messages/{kind_of(model)}.json"]
        assert schema["properties"].keys() == model.model_fields.keys()


def test_bytes_are_digits() -> None:
    chunk = chunks.vectors()["model"]["chunks"][0]["content"]
    check = validator("messages/model-chunk.json")
    check.validate(chunk)
    for data in ("00", {"hex": "0"}, {"hex": "zz"}, {"hex": "00", "more": 1}, {}):
        assert not check.is_valid(chunk | {"data": data})


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, each with its whole name."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            below = command.get_command(context, each)
            assert below is not None
            yield from commands(below, f"{name} {each}")


def printing_json() -> Iterator[str]:
    """The commands with ``--json``. ``fl-mqtt`` has those of the other programs under other names."""
    programs = {"fl-aggregator": fl_aggregator, "fl-edge": fl_edge, "fl-mqtt": fl_mqtt}
    known: set[click.Command] = set()
    for name, command in (each for program in programs for each in commands(programs[program], program)):
        options = command.get_params(click.Context(command))
        if command not in known and any("--json" in option.opts for option in options):
            yield name
        known.add(command)


def test_every_json_output_has_a_schema_and_a_test() -> None:
    """A test hands what a command has printed to `checked`, by its name or as the result of a `Program`."""
    assert set(printing_json()) == OUTPUTS.keys()
    source = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py"))
    tested = {name for name in OUTPUTS if f'checked("{name}"' in source} | set(RESULTS)
    assert tested == OUTPUTS.keys()


@pytest.mark.parametrize("name", schemas.CONFIGURED)
def test_defaults_are_values_that_a_file_may_have(name: str) -> None:
    command = schemas.CONFIGURED[name]
    defaults: dict[str, Any] = {
        option.opts[-1].removeprefix("--"): option.default
        for option in command.get_params(click.Context(command))
        if isinstance(option, click.Option)
        and option.expose_value
        and isinstance(option.default, bool | int | float | str)
        and option.opts[-1].startswith("--")
    }
    assert len(defaults) > 2
    validator(f"config/{name.replace(' ', '-')}.json").validate(defaults)


def test_a_file_of_a_run_validates() -> None:
    check = validator("config/fl-aggregator-start.json")
    check.validate(
        {"clients": 20, "per-round": 10, "lr": 0.1, "task": "tabular", "task-option": {"target": "price"}}
    )
    for wrong in ({"client": 20}, {"clients": 0}, {"clients": 2.5}, {"dp": "secret"}, {"masked": "yes"}):
        assert not check.is_valid(wrong)
