"""Writes the document of all options of a run and of an edge, as the commands declare them.

python -m scripts.options_document > docs/options.md
"""

from __future__ import annotations

import sys

import click

from fl_aggregator.cli.start import start
from fl_edge.cli import command as fl_edge
from fl_mqtt.regional.cli import relay
from fl_mqtt.simulation.cli import simulate
from fl_shared.cli.headings import HEADINGS, OTHER, heading_of

TOP = """# Options

What `fl-aggregator start`, `fl-aggregator simulate`, `fl-edge` and `fl-aggregator relay` can be told. `--help` shows
the same.

Every option can also be set in the environment (`FL_KEEPALIVE` for `--keepalive`) or in the TOML file of `--config`
(`keepalive = 10`). The command line wins over the environment, and the environment over the file. The settings of a
run are in its `run.json`. With `--resume` they cannot change, except that `--require-sealed` can be turned on.

This file is generated: `python -m scripts.options_document > docs/options.md`.
"""


def render() -> str:
    """The document, in Markdown."""
    of_start = _rows(start, "start")
    known = [row for rows in of_start.values() for row in rows]
    own = {
        heading: [row for row in rows if row not in known]
        for heading, rows in _rows(simulate, "simulate").items()
    }
    return "\n".join(
        [
            TOP,
            *_section("fl-aggregator start", of_start),
            *_section("fl-aggregator simulate", own, "The options of `start`, with these differences:"),
            *_section("fl-edge", _rows(fl_edge, "fl-edge")),
            *_section("fl-aggregator relay", _rows(relay, "relay")),
        ]
    )


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
                cell.replace("|", r"\|") for cell in (f"`{record[0]}`", shown, option.help or "")
            )
            rows[heading_of(option)].append(f"| {line} |")
    return rows


def _section(title: str, rows: dict[str, list[str]], first: str = "") -> list[str]:
    lines = [f"## `{title}`", ""]
    if first:
        lines += [first, ""]
    lines += ["| option | default | meaning |", "| --- | --- | --- |"]
    for heading, found in rows.items():
        if found:
            lines += [f"| **{heading}** | | |", *found]
    return [*lines, ""]


if __name__ == "__main__":
    sys.stdout.write(render())
