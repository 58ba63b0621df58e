"""What programs print names pages of the documentation as readers see them: who installs a wheel has no ``docs/``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("aggregator", "edge_client", "shared", "fl_mqtt")


def texts() -> Iterator[tuple[str, str]]:
    """Each string of the programs that is no docstring, with where it is."""
    for file in (file for program in PROGRAMS for file in sorted((ROOT / program).rglob("*.py"))):
        source = file.read_text(encoding="utf-8")
        if "docs/" not in source and "the page '" not in source:
            continue
        tree = ast.parse(source)
        bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
                yield f"{file.relative_to(ROOT)}:{node.lineno}", node.value


def test_no_text_names_a_file_of_the_documentation() -> None:
    assert [
        place for place, text in texts() if re.search(r"\bdocs/[\w/-]+\.md", text) and "`docs/" not in text
    ] == []


def test_the_pages_that_are_named_exist() -> None:
    titles = set(
        re.findall(
            r"^ *- ([^:\n]+): \S+\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    named = {title for _, text in texts() for title in re.findall(r"the page '([^']+)'", text)}
    assert len(named) >= 5
    assert named <= titles
