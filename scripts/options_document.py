"""Writes the document of all commands and their options, as the programs declare them.

python -m scripts.options_document > docs/options.md
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Final

import click

from fl_aggregator.cli.main import cli as fl_aggregator
from fl_aggregator.cli.start import start
from fl_aggregator.cli.survey import survey
from fl_edge.cli import command as fl_edge
from fl_edge.tools.task_commands import check_task, new_task
from fl_mqtt.cli.demo import demo
from fl_mqtt.regional.cli import relay
from fl_mqtt.simulation.cli import simulate
from fl_shared.cli.headings import HEADINGS, OTHER, heading_of
from fl_shared.cli.request_kit import request_kit_command

TOP: Final = """# Commands and options

The options of all commands. `--help` shows the same.

Nearly every option can also be set in the environment (`FL_KEEPALIVE` for `--keepalive`) or in the TOML file of
`--config` (`keepalive = 10`). The command line wins over the environment, and the environment over the file. The
settings of a run are in its `run.json`. With `--resume` they cannot change, except that `--require-sealed` can be
turned on.

This file is generated: `python -m scripts.options_document > docs/options.md`.
"""
LONG: Final = (start, simulate, survey, fl_edge, relay)
"""The commands that come first, and whose own options are told apart."""


def render() -> str:
    """The document, in Markdown."""
    of_start = _rows(start, "start")
    known = [row for rows in of_start.values() for row in rows]

    def own(command: click.Command, name: str) -> dict[str, list[str]]:
        rows = _rows(command, name)
        return {heading: [row for row in found if row not in known] for heading, found in rows.items()}

    of_survey = (
        "The options of `start` that choose the edges, their data, the broker, masks and noise, and these:"
    )
    lines = [
        TOP,
        *_section("fl-aggregator start", of_start),
        *_section(
            "fl-aggregator simulate",
            own(simulate, "simulate"),
            "The options of `start`, with these differences:",
        ),
        *_section("fl-aggregator survey", own(survey, "survey"), of_survey),
        *_section("fl-edge", _rows(fl_edge, "fl-edge")),
        *_section("fl-aggregator relay", _rows(relay, "relay")),
    ]
    for path, command in _other_commands():
        usage = " ".join(command.collect_usage_pieces(click.Context(command)))
        text = _prose(inspect.cleandoc(command.help or "").replace("\b\n", ""))
        lines += _section(path, _rows(command, path), f"`{path} {usage}`\n\n{text}")
    return "\n".join(lines)


def _other_commands() -> Iterator[tuple[str, click.Command]]:
    """Each command with the words by which it is called, but for those of `LONG`."""
    for path, command in (
        *_below("fl-aggregator", fl_aggregator),
        ("fl-edge new-task", new_task),
        ("fl-edge check-task", check_task),
        ("fl-edge request-kit", request_kit_command("edge")),
        ("fl-mqtt demo", demo),
    ):
        if command not in LONG:
            yield path, command


def _below(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _below(f"{path} {name}", command.commands[name])


def _rows(command: click.Command, name: str) -> dict[str, list[str]]:
    """The rows of the tables, by heading."""
    context = click.Context(command, info_name=name, show_default=True)
    rows: dict[str, list[str]] = {heading: [] for heading in HEADINGS if heading != OTHER}
    for option in command.get_params(context):
        if isinstance(option, click.Option) and heading_of(option) in rows:
            record = option.get_help_record(context)
            assert record is not None
            default = option.get_help_extra(context).get("default", "")
            in_words = default.startswith("(")
            shown = default.strip("()").replace("<", "&lt;") if in_words or not default else f"`{default}`"
            line = " | ".join(
                cell.replace("|", r"\|") for cell in (f"`{record[0]}`", shown, _prose(option.help or ""))
            )
            rows[heading_of(option)].append(f"| {line} |")
    return rows


def _prose(text: str) -> str:
    """Text in which Markdown finds no links and no HTML."""
    for sign in "<[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _section(title: str, rows: dict[str, list[str]], first: str = "") -> list[str]:
    lines = [f"## `{title}`", ""]
    if first:
        lines += [first, ""]
    if any(rows.values()):
        lines += ["| option | default | meaning |", "| --- | --- | --- |"]
    for heading, found in rows.items():
        if found:
            lines += [f"| **{heading}** | | |", *found]
    return [*lines, ""]


if __name__ == "__main__":
    sys.stdout.write(render())
