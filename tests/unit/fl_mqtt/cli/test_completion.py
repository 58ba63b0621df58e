"""What a shell completes, as click finds it for each of our commands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import click
import pytest
from click.shell_completion import ShellComplete

from fl_aggregator.cli.main import cli as aggregator
from fl_edge.cli import command as edge
from fl_mqtt.cli.main import cli as fl_mqtt
from tests.support.programs import BIN

PROGRAMS: Mapping[str, click.Command] = MappingProxyType(
    {"fl-aggregator": aggregator, "fl-edge": edge, "fl-mqtt": fl_mqtt}
)


def completed(line: str) -> list[str]:
    """What may follow; the last word of the line is incomplete."""
    program, *words, incomplete = line.split(" ")
    shell = ShellComplete(PROGRAMS[program], {}, program, "_COMPLETE")
    return [item.value for item in shell.get_completions(words, incomplete)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fl-aggregator start --task di", ["digits", "digits-mlp"]),
        ("fl-aggregator simulate --task ta", ["tabular"]),
        ("fl-aggregator tasks mn", ["mnist"]),
        ("fl-mqtt simulate --task digits-", ["digits-mlp"]),
        ("fl-mqtt aggregator start --task digits-", ["digits-mlp"]),
        ("fl-edge --task fashion", ["fashion-mnist"]),
        ("fl-aggregator start --strategy fedad", ["fedadagrad", "fedadam"]),
        ("fl-aggregator start --combine trim", ["trimmed-mean"]),
        ("fl-aggregator start --server-optimizer y", ["yogi"]),
        ("fl-aggregator start --transform ", ["clip"]),
        ("fl-aggregator start --correct s", ["scaffold"]),
        ("fl-aggregator start --partition-", []),
        ("fl-aggregator sta", ["start", "status"]),
        ("fl-edge --require-m", ["--require-masked"]),
        ("fl-edge --device c", ["cpu", "cuda"]),
    ],
)
def test_names_are_completed(line: str, expected: list[str]) -> None:
    assert completed(line) == expected


def test_kits_are_completed_and_other_files_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("edge-1.zip", "edge-2.zip", "edges.txt", "kits/edge-3.zip"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert completed("fl-edge --kit ed") == ["edge-1.zip", "edge-2.zip"]
    assert completed("fl-edge --kit ") == ["edge-1.zip", "edge-2.zip", "kits/"]
    assert completed("fl-aggregator start --kit kits/") == ["kits/edge-3.zip"]
    assert completed(f"fl-aggregator watch --kit {tmp_path}/kits/e") == [f"{tmp_path}/kits/edge-3.zip"]
    assert completed("fl-edge --kit none/") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_program_prints_the_script_of_a_shell_and_answers_it(shell: str) -> None:
    def run(instruction: str, **more: str) -> str:
        environment = {**os.environ, "_FL_EDGE_COMPLETE": instruction, **more}
        return subprocess.run(
            [BIN / "fl-edge"], env=environment, capture_output=True, text=True, timeout=120, check=True
        ).stdout

    assert "_FL_EDGE_COMPLETE" in run(f"{shell}_source")
    words = {"COMP_WORDS": "fl-edge --task fashion", "COMP_CWORD": "2"}
    if shell == "fish":
        words["COMP_CWORD"] = "fashion"
    assert "fashion-mnist" in run(f"{shell}_complete", **words)
