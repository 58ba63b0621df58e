"""The tables of attacks in `docs/security.md` are those of the tests, line by line, and each test exists."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.attacks.attack import Attack, CoveredElsewhere
from tests.support.attacks.table import ATTACKS, COVERED_ELSEWHERE

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "security.md"


def tables() -> list[list[str]]:
    """The lines of each table below the heading of attacks, without its head."""
    found: list[list[str]] = []
    inside = False
    for line in DOCUMENT.read_text(encoding="utf-8").partition("\n## What is tried\n")[2].splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            found[-1].append(line)
        inside = line.startswith("|")
    return [table[2:] for table in found]


def test_the_document_has_what_the_tests_try() -> None:
    assert tables() == [
        [attack.line() for attack in ATTACKS],
        [attack.line() for attack in COVERED_ELSEWHERE],
    ]


def test_no_attempt_stands_there_twice() -> None:
    attacks: list[Attack | CoveredElsewhere] = [*ATTACKS, *COVERED_ELSEWHERE]
    keys = [(attack.name, attack.who, setup) for attack in attacks for setup in attack.setups]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("test", [attack.test for attack in COVERED_ELSEWHERE])
def test_what_is_tried_elsewhere_is(test: str) -> None:
    file, _, function = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
