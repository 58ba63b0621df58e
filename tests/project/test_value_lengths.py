"""The length of a value has one home: no module but the encodings knows it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fl_shared.tensors.encodings.registry import ENCODINGS

ROOT = next(path for path in Path(__file__).parents if path.name == "tests").parent
SOURCES = [
    path
    for folder in ("aggregator", "edge_client", "shared", "fl_mqtt", "benchmarks", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not {"encodings", "build", "update_encodings.py"} & set(path.relative_to(ROOT).parts)
]
NAMES = {*ENCODINGS} - {"bf16"}
"""Of encodings. The one that is left out is also a precision of training."""
OF_VALUES = ("value", "param", "vector", "weight", "delta", "data")


def lengths_known(source: str) -> list[str]:
    """Where a module takes a length of values into its own hands, or the bytes or the name of an encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr="itemsize" | "nbytes"):
                found.append(ast.unparse(node))
            case ast.Constant(value=str() as text) if text in NAMES or text.strip("<>=") == "f4":
                found.append(ast.unparse(node))
            case ast.BinOp(left=left, op=ast.Mult() | ast.FloorDiv() | ast.Mod(), right=right):
                for number, other in ((left, right), (right, left)):
                    text = ast.unparse(other).lower()
                    if ast.unparse(number) == "4" and any(name in text for name in OF_VALUES):
                        found.append(ast.unparse(node))
    return found


def test_no_other_module_knows_how_long_a_value_is() -> None:
    assert len(SOURCES) > 150
    known = {str(path.relative_to(ROOT)): lengths_known(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: found for path, found in known.items() if found} == {}


@pytest.mark.parametrize(
    "line",
    [
        "size = 4 * manifest.values",
        "size = VALUES * 4",
        "megabytes = line['params'] * 4 / 1e6",
        "count = len(section.data) // 4",
        "whole = len(vector) % 4 == 0",
        "size = values * dtype.itemsize",
        "size = weights.nbytes",
        "vector = np.frombuffer(data, '<f4')",
        "section = ModelSection('weights', manifest, data, 'f32')",
    ],
)
def test_a_module_that_knows_it_is_found(line: str) -> None:
    assert lengths_known(line)


@pytest.mark.parametrize(
    "line", ["limit = 4 * 2**20", "few = chunks // 4", "header = stream.read(4 + 4 * n)"]
)
def test_other_fours_are_left_alone(line: str) -> None:
    assert lengths_known(line) == []
