"""Parts of strategies that another distribution installs: listed, used by a run, and named if they are broken."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support import programs

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("light_edges")]

AGGREGATOR = '''
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field


@dataclass(frozen=True)
class Half:
    """Half of the mean of edges (Nobody et al. 2026). ``share``: what is taken of it."""

    wants_norms: ClassVar[bool] = False
    share: Annotated[float, Field(gt=0, le=1)] = 0.5

    def max_weight(self, max_examples):
        return 1.0

    def weight(self, update):
        return self.share

    def divisor(self, closed):
        return float(len(closed.contributions))


@dataclass(frozen=True)
class Signs:
    """x ← x + η sign(Δ) (Nobody et al. 2026). ``lr``: η."""

    wants_norms: ClassVar[bool] = False
    lr: Annotated[float, Field(gt=0, le=1)] = 0.001

    def state(self) -> Mapping[str, float]:
        return {"rounds": 0.0}

    def step(self, block, closed):
        block.weights[:] += self.lr * (block.change > 0) - self.lr * (block.change < 0)
        block.state["rounds"][:] += 1


@dataclass(frozen=True)
class Damp:
    """Δ ← fΔ (Nobody et al. 2026). ``by``: f."""

    wants_norms: ClassVar[bool] = False
    by: Annotated[float, Field(gt=0, le=1)] = 0.9

    def factor(self, update):
        return self.by


@dataclass(frozen=True)
class Shrink:
    """g ← g + λw (Nobody et al. 2026). ``decay``: λ."""

    name: ClassVar[str] = "shrink"
    sections: ClassVar[tuple[str, ...]] = ()
    decay: Annotated[float, Field(ge=0, le=1)] = 0.01

    def state(self) -> Mapping[str, float]:
        return {}

    def absorb(self, block, closed):
        pass


@dataclass(frozen=True)
class Missing(Shrink):
    """Its half on the edge cannot be imported."""

    name: ClassVar[str] = "missing"
'''
EDGE = """
from fl_edge.training.corrections.correction import CorrectionResult


class Shrink:
    def __init__(self, settings, published, own):
        self._decay = settings["decay"]

    def begin(self, parameters):
        pass

    def prepare(self, indices, gradients):
        return self._decay

    def correct(self, index, parameter, gradient, scale):
        gradient += scale * parameter

    def end(self):
        return CorrectionResult()
"""
ENTRY_POINTS = """
[fl_mqtt.combinations]
half = parts_of_others:Half
gone = no_such_module:Half

[fl_mqtt.server_optimizers]
signs = parts_of_others:Signs
gone = no_such_module:Signs

[fl_mqtt.transforms]
damp = parts_of_others:Damp
gone = no_such_module:Damp

[fl_mqtt.server_corrections]
shrink = parts_of_others:Shrink
missing = parts_of_others:Missing
gone = no_such_module:Shrink

[fl_mqtt.corrections]
shrink = edge_parts_of_others:Shrink
missing = no_such_module:Shrink
"""
RUN = ("--task", "digits-mlp", "--clients", "3", "--rounds", "2", "--epochs", "1", "--momentum", "0")
PARTS = {"combine": "half", "server-optimizer": "signs", "transform": "damp", "correct": "shrink"}


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distribution, as pip would install it."""
    packages = tmp_path / "packages"
    information = packages / "parts_of_others-1.dist-info"
    information.mkdir(parents=True)
    (packages / "parts_of_others.py").write_text(AGGREGATOR, encoding="utf-8")
    (packages / "edge_parts_of_others.py").write_text(EDGE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: parts-of-others\nVersion: 1\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.setenv("PYTHONPATH", ":".join((str(packages), *sys.path)))


def ended(directory: Path, *arguments: str) -> tuple[int, str, str]:
    """The exit code of ``fl-aggregator``, and what it has said on standard output and standard error."""
    with programs.Program(directory, "fl-aggregator", *arguments) as program:
        return program.wait(), program.out, program.err


def test_they_are_described_as_those_of_this_distribution(tmp_path: Path) -> None:
    for kind, name in PARTS.items():
        code, out, err = ended(tmp_path / name, "strategies", name, "--json")
        assert code == 0, err
        (field,) = json.loads(out)[kind][name]["fields"].values()
        assert field["description"], name
        assert "Nobody et al. 2026" in out
    code, out, err = ended(tmp_path / "all", "strategies")
    assert code == 0, "what is broken hides no other"
    assert all(f"\n  {name} " in out for name in PARTS.values())
    assert err.count("'gone': cannot be imported: ModuleNotFoundError: No module named 'no_such_module'") == 4


def test_a_run_uses_them(tmp_path: Path) -> None:
    chosen = [word for kind, name in PARTS.items() for word in (f"--{kind}", name)]
    with programs.simulate_virtually(tmp_path, *RUN, *chosen) as run:
        run.ends_well()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    found = record["strategy_parts"]
    assert found["combine"] == {"part": "parts_of_others:Half", "share": 0.5}
    assert found["server-optimizer"] == {"part": "parts_of_others:Signs", "lr": 0.001}
    assert found["transform"] == [{"part": "parts_of_others:Damp", "by": 0.9}]
    assert found["correct"] == {"part": "parts_of_others:Shrink", "decay": 0.01}
    assert [line["strategy"]["numbers"]["clipped"] for line in programs.history(tmp_path)] == [3.0, 3.0]


@pytest.mark.parametrize("kind", PARTS)
def test_a_broken_one_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    said = f"--{kind} 'gone': cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"
    code, _, err = ended(tmp_path / "run", "simulate", "--virtual", *RUN, f"--{kind}", "gone")
    assert code == 2
    assert err == f"fl-aggregator: {said}\n"
    code, _, err = ended(tmp_path / "listed", "strategies", "gone")
    assert (code, err.count("\n")) == (2, 1)
    assert "'gone': cannot be imported: ModuleNotFoundError" in err


def test_a_half_that_edges_cannot_import_ends_the_run_and_is_named(tmp_path: Path) -> None:
    with programs.simulate_virtually(tmp_path, *RUN, "--correct", "missing") as run:
        assert run.wait() == 1, run.output
    assert "correction 'missing' (no_such_module:Shrink) cannot be loaded: ModuleNotFoundError" in run.err
