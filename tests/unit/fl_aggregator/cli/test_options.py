"""Options: declared once, and the same in the command line, its help, ``--resume``, ``run.json`` and the document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from fl_aggregator.cli.main import cli
from fl_aggregator.cli.options import refuse_with_resume
from fl_aggregator.cli.start import start
from fl_aggregator.configuration.settings import Settings, options_of_run, parse_settings
from fl_aggregator.storage.run_directory import FleetRecord, new_record
from fl_edge.cli import command as fl_edge
from fl_mqtt.simulation.cli import OF_EDGES, simulate
from fl_shared.cli.headings import HEADINGS, OPTIONS, OTHER, heading_of
from fl_shared.errors import UserError
from fl_shared.protocol.partition_scheme import SCHEMES
from scripts import options_document

ROOT = Path(__file__).parents[4]
OPTIONS_OF_RUN = options_of_run()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OPTIONS_OF_RUN:
        monkeypatch.delenv(f"FL_{name.upper()}", raising=False)


def parameters(command: click.Command) -> dict[str, click.Parameter]:
    return {one.name: one for one in command.get_params(click.Context(command)) if one.name is not None}


def values(command: click.Command, *arguments: str) -> dict[str, Any]:
    """The settings among what a command line says."""
    found = command.make_context("command", list(arguments)).params
    return {name: value for name, value in found.items() if name in OPTIONS_OF_RUN}


def help_of(command: click.Command) -> str:
    # Narrow: nothing may be cut off even so.
    return CliRunner().invoke(command, ["--help"], terminal_width=80).output


def headings_in(text: str) -> list[str]:
    return [line.removesuffix(":") for line in text.splitlines() if line.removesuffix(":") in HEADINGS]


def test_every_setting_is_an_option() -> None:
    """The prefix comes with the options that say how to reach the broker: a kit names it, too.

    What a regional aggregator is told by the run above is no option either, nor what is surveyed or
    looked at, nor the plan of --dp.
    """
    assert Settings.model_fields.keys() - OPTIONS_OF_RUN.keys() == {
        "prefix",
        "sums",
        "region",
        "survey",
        "look",
        "privacy",
    }
    assert parameters(start).keys() >= OPTIONS_OF_RUN.keys()
    assert OPTIONS_OF_RUN.keys() - parameters(simulate).keys() == {"require_sealed"}


@pytest.mark.parametrize(("command", "other"), [(start, {}), (simulate, {"grace": 0.0})])
def test_the_defaults_of_the_command_line_are_those_of_the_settings(
    command: click.Command, other: dict[str, Any]
) -> None:
    for name, default in values(command).items():
        in_words = OPTIONS_OF_RUN[name].default is not None
        expected = None if in_words else Settings.model_fields[name].default
        assert default == other.get(name, expected), name
    assert parse_settings(**values(command)) == Settings(**other)
    assert parse_settings(**values(command, "--clients", "3")) == Settings(clients=3, per_round=3, **other)


def test_values_come_from_the_command_line_with_the_type_of_their_setting() -> None:
    line = (
        "--lr",
        "0.5",
        "--quorum",
        "3",
        "--partition",
        "dirichlet:1",
        "--durability",
        "power",
        "--require-sealed",
    )
    assert parse_settings(**values(start, *line)) == Settings(
        lr=0.5, quorum=3, partition="dirichlet:1", durability="power", require_sealed=True
    )


def test_settings_are_in_the_record_of_the_run() -> None:
    settings = Settings(chunk=4096, durability="memory", require_sealed=True)
    recorded = new_record(settings).model_dump(mode="json")
    assert recorded["settings"] == settings.model_dump(mode="json")
    assert not recorded.keys() & OPTIONS_OF_RUN.keys() - {"seed"}


@pytest.mark.parametrize("name", sorted(OPTIONS_OF_RUN))
def test_resume_refuses_a_setting(name: str) -> None:
    option = f"--{name.replace('_', '-')}"
    value = {
        "require_sealed": [],
        "masked": [],
        "dp": ["central"],
        "dp_against": ["wire"],
        "dp_accuracy": [],
        "fold_bits": ["64"],
        "strategy": ["fedavg"],
        "durability": ["power"],
        "mode": ["async"],
        "model_encoding": ["bf16"],
        "precision": ["bf16"],
        "task_option": ["a=b"],
    }.get(name, ["3"])
    with start.make_context("start", ["--resume", "run", option, *value]):
        if OPTIONS_OF_RUN[name].at_resume:
            refuse_with_resume()
            return
        with pytest.raises(UserError) as caught:
            refuse_with_resume()
    assert str(caught.value) == f"{option} cannot be combined with --resume: settings cannot change"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--init", __file__), ("--run-dir", "x"), ("--prefix", "x"), ("--broker", "mqtt://x"), ("--device", "cpu"),
     ("--workers", "2"), ("--data", ".")],
)  # fmt: skip
def test_resume_of_a_simulation_refuses_what_its_run_has_already(option: str, value: str) -> None:
    with (
        simulate.make_context("simulate", ["--resume", "run", option, value]),
        pytest.raises(UserError, match=f"^{option} cannot be combined with --resume"),
    ):
        refuse_with_resume("broker", *OF_EDGES)


def test_a_simulation_has_the_options_of_edges_from_the_edge() -> None:
    for name in OF_EDGES:
        assert parameters(simulate)[name] is parameters(fl_edge)[name]


def test_the_options_of_a_fleet_are_in_the_record_of_the_run(tmp_path: Path) -> None:
    fleet = FleetRecord(options={"data": tmp_path, "device": "cpu", "workers": 2})
    written = new_record(Settings(), fleet=fleet).model_dump_json()
    again = type(new_record(Settings())).model_validate_json(written).fleet
    assert again == FleetRecord(options={"data": str(tmp_path), "device": "cpu", "workers": 2})


@pytest.mark.parametrize(
    ("command", "missing"),
    [(start, {"The edge"}), (simulate, {"The edge"}), (fl_edge, {"The run", "Rounds", "Evaluation"})],
)
def test_help_groups_options_under_headings(command: click.Command, missing: set[str]) -> None:
    text = help_of(command)
    assert headings_in(text) == [one for one in HEADINGS if one not in missing | {OPTIONS}]
    for parameter in parameters(command).values():
        assert heading_of(parameter) != OPTIONS, parameter.name
        assert parameter.opts[-1] in text
        assert getattr(parameter, "help", None), f"{parameter.name} has no help"


def test_a_command_with_one_group_has_the_usual_heading() -> None:
    assert headings_in(help_of(cli)) == [OPTIONS]
    assert OTHER in headings_in(help_of(start))


def test_help_lists_the_values_of_choices() -> None:
    text = help_of(start)
    assert "|".join(SCHEMES) in text
    assert "--strategy NAME[:FIELD=VALUE,…]" in text
    assert "--durability [process|power|memory]" in text
    assert "--log-format [text|json]" in text
    edge = help_of(fl_edge)
    assert "--role train|predict|evaluate" in edge
    assert "--device [cpu|cuda|auto]" in edge


@pytest.mark.parametrize("group", [cli, cli.commands["provision"]])
def test_the_summaries_of_commands_are_whole_sentences(group: click.Group) -> None:
    text = " ".join(help_of(group).split())
    for name, command in group.commands.items():
        first = str(command.help).split("\n\n")[0]
        summary = command.get_short_help_str()
        assert not summary.endswith("...")
        assert f"{name} {summary}" in text
        assert " ".join(first.split()).startswith(summary)


def test_the_document_is_what_the_commands_say() -> None:
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert options_document.render() == text, "python -m scripts.options_document > docs/options.md"
