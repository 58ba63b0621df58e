"""`docs/reliability.md` names a test behind each promise, and each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PROMISE = re.compile(r"^- \*\*(\d+)\.(\d+)\*\* ", re.MULTILINE)


def promises() -> dict[str, str]:
    """By number, the text from its number to the next one's, or the end of its section."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("\n## Every fault")[0]
    starts = list(PROMISE.finditer(text))
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return {f"{s[1]}.{s[2]}": text[s.start() : end] for s, end in zip(starts, ends, strict=True)}


def test_promises_are_numbered_in_order() -> None:
    numbers = [tuple(map(int, number.split("."))) for number in promises()]
    assert len(numbers) > 30
    assert numbers == sorted(numbers)
    for section in {first for first, _ in numbers}:
        within = [second for first, second in numbers if first == section]
        assert within == list(range(1, len(within) + 1))


@pytest.mark.parametrize("number", promises())
def test_a_promise_has_a_test(number: str) -> None:
    named = NAMED.findall(promises()[number])
    assert named, "a promise names the test behind it, as `tests/….py::test_…`"
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert test in functions, f"{number}: {file} has no {test}"
