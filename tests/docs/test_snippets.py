"""Every code block of the documents is run, or says why it cannot be (see `tests.support.snippets`)."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import click
import pytest

from fl_aggregator.cli.start import start
from fl_edge.cli import command as fl_edge
from fl_mqtt.simulation.virtual.specification import read_specification
from tests.support.broker import Mosquitto
from tests.support.snippets import (
    DATA,
    PYTHON,
    ROOT,
    SHELL,
    SHOWN,
    Block,
    blocks_of,
    run_page,
    unknown_options,
)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = {
    page: [b for b in BLOCKS if b.page == page and b.language in SHELL | PYTHON and b.reason is None]
    for page in PAGES
}
TORCH = {"docs/how-to/from-flower.md", "docs/strategies.md", "docs/simulation.md", "docs/tasks.md"}
"""Pages whose edges need torch. The edges of all other pages do without, which starts them faster."""
LONG = {
    "docs/brokers.md",
    "docs/how-to/from-fedml.md",
    "docs/how-to/from-flower.md",
    "docs/how-to/gateways.md",  # the programs of passwords-without-tls.md, your-data.md and serve.md
    "docs/how-to/keys-on-devices.md",
    "docs/how-to/masked-sums.md",
    "docs/how-to/passwords-without-tls.md",
    "docs/how-to/predictions.md",
    "docs/how-to/private-runs.md",
    "docs/how-to/python.md",  # the same program as in the README
    "docs/how-to/raspberry-pi.md",
    "docs/how-to/reports.md",
    "docs/how-to/resume.md",
    "docs/how-to/serve.md",
    "docs/how-to/survey.md",
    "docs/how-to/sweeps.md",
    "docs/how-to/use-the-model.md",
    "docs/how-to/your-broker.md",
    "docs/how-to/your-data.md",
    "docs/personal.md",
    "docs/simulation.md",
    "docs/start.md",
    "docs/strategies.md",
    "docs/tasks.md",
}
"""Pages that cost more than they tell on every day: what they run is run by other tests, too."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{name_of(block.page)}:{block.line}")
def test_a_block_is_run_or_says_why_not(block: Block, tmp_path: Path) -> None:
    known = block.language in SHELL | PYTHON | DATA | SHOWN
    assert known or block.reason, f"{block.place}: a block without a known language"
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        check_toml(block, tmp_path)
    elif block.language in SHELL:
        assert unknown_options(block) == []
    elif block.language in PYTHON:
        compile(block.text, block.place, "exec")


@pytest.mark.broker
@pytest.mark.edge
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=pytest.mark.long if name_of(page) in LONG else ())
        for page, blocks in RUN.items()
        if blocks
    ],
)
def test_a_page_runs(page: Path, mosquitto: Mosquitto, tmp_path: Path) -> None:
    directory = tmp_path / "page"
    directory.mkdir()
    environment = {} if name_of(page) in TORCH else {"FL_LIGHT": "1"}
    run_page(RUN[page], directory, mosquitto.port, environment)


def check_toml(block: Block, directory: Path) -> None:
    """Checks a part of a `pyproject.toml`, a file of devices (`--heterogeneity`), or one of options (`--config`)."""
    content = tomllib.loads(block.text)
    if "speed" in content:
        (directory / "devices.csv").write_text("client,examples_per_second,down,up\n7,100,1e6,1e6\n")
        (directory / "on_off.csv").write_text("client,second,state\n7,0,on\n7,60,off\n")
        (directory / "fleet.toml").write_text(block.text)
        read_specification(str(directory / "fleet.toml"))
    elif "project" not in content:
        options = [p for p in (*start.params, *fl_edge.params) if isinstance(p, click.Option)]
        known = {name.removeprefix("--") for option in options for name in option.opts}
        assert set(content) <= known, f"{block.place}: not options of start or of fl-edge"


def test_a_mistake_in_a_block_is_found(mosquitto: Mosquitto, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nfl-aggregator start --per-rounds 3 && fl-edge --id 0\n```\n"
        "<!-- not run: a reason -->\n```sh\nfl-aggregator provision add 7 --outer x\n```\n"
        "<!-- in another terminal -->\n```sh\nsleep 1000\n```\n"
        "- item\n\n  ```console\n  $ mosquitto_pub -t a -m b\n  $ false\n  ```\n"
    )
    blocks = blocks_of(page)
    assert [(b.line, b.language, b.reason, b.beside) for b in blocks] == [
        (1, "sh", None, False), (5, "sh", "a reason", False), (9, "sh", None, True), (14, "console", None, False),
    ]  # fmt: skip
    found = [unknown for block in blocks for unknown in unknown_options(block)]
    assert [line.rpartition(" ")[2] for line in found] == ["--per-rounds", "--outer"]
    with pytest.raises(AssertionError, match=rf"{page}:14: exit code 1"):
        run_page(blocks[2:], tmp_path, mosquitto.port, {})
