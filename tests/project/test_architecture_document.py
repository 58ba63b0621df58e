"""Every place in the code that `docs/architecture.md` names exists, and every thread that the code names is in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
PACKAGES = {
    "fl_aggregator": ROOT / "aggregator",
    "fl_edge": ROOT / "edge_client",
    "fl_shared": ROOT / "shared",
    "fl_mqtt": ROOT / "fl_mqtt",
}

CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
PLACE = re.compile(r"(?P<file>[\w/]+\.py)(?:: (?P<names>[\w.]+(?:, [\w.]+)*))?")
CLASS = re.compile(r"[A-Z][a-z]\w*(?:\.\w+)?")
CLASS_IN_DIAGRAM = re.compile(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b")


def names_defined(source: str) -> set[str]:
    """The functions, classes, constants and fields of a module: ``name`` or ``Class.name``."""
    return set(_names_in(ast.parse(source), ""))


def _names_in(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for child in node.body:
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield prefix + name
            case ast.ClassDef(name=name):
                yield prefix + name
                yield from _names_in(child, f"{prefix}{name}.")
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name
            case ast.Assign(targets=targets):
                yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))
            case _:
                pass


@cache
def _names_of_file(path: Path) -> frozenset[str]:
    return frozenset(names_defined(path.read_text(encoding="utf-8")))


@cache
def _modules() -> tuple[Path, ...]:
    return tuple(path for name, folder in PACKAGES.items() for path in (folder / name).rglob("*.py"))


@cache
def _all_names() -> frozenset[str]:
    return frozenset[str]().union(*map(_names_of_file, _modules()))


def wrong_places(text: str) -> list[str]:
    """The code spans of a document that name a file, folder, function or class that does not exist.

    In code blocks, where names stand without quotes, only words of two parts (``UpdateArrived``) are looked at.
    """
    spans = CODE_SPAN.findall(CODE_BLOCK.sub("", text))
    in_diagrams = CLASS_IN_DIAGRAM.findall("\n".join(CODE_BLOCK.findall(text)))
    wrong = [problem for span in spans for problem in _problems_of(span)]
    return wrong + [name for name in in_diagrams if name not in _all_names()]


def _problems_of(span: str) -> list[str]:
    package = span.partition("/")[0]
    if span.endswith(".py") or ".py:" in span:
        found = PLACE.fullmatch(span)
        if found is None or package not in PACKAGES:
            return [f"{span}: expected PACKAGE/FILE.py, or PACKAGE/FILE.py: NAME, NAME"]
        file = PACKAGES[package] / found["file"]
        if not file.is_file():
            return [f"{span}: no such file"]
        names = (found["names"] or "").split(", ") if found["names"] else []
        return [f"{found['file']}: {name}" for name in names if name not in _names_of_file(file)]
    if "/" in span and package in PACKAGES:
        return [] if (PACKAGES[package] / span).is_dir() else [f"{span}: no such folder"]
    if CLASS.fullmatch(span):
        return [] if span in _all_names() else [f"{span}: no such class"]
    return []


def thread_names(source: str) -> set[str]:
    """The names that a module gives to threads and thread pools; of one with a number, what is constant in it."""
    found = set[str]()
    if not any(word in source for word in ("Thread", "Network")):
        return found
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            values: list[ast.expr] = []
            if called == "Thread":
                values = [keyword.value for keyword in node.keywords if keyword.arg == "name"]
            elif called in ("ThreadPoolExecutor", "Network"):
                values = list(node.args)
            found |= {
                constant.value
                for value in values
                for constant in ast.walk(value)
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
            }
    return found


def test_every_place_exists() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert sum(": " in span and ".py" in span for span in CODE_SPAN.findall(text)) > 100
    assert wrong_places(text) == []


def test_every_thread_is_in_the_document() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    names = set().union(*(thread_names(path.read_text(encoding="utf-8")) for path in _modules()))
    assert {"keeper", "receiver", "fl-arithmetic", "fl-aggregator", "worker-"} <= names
    assert [name for name in sorted(names) if f"`{name}" not in text and f"{name}`" not in text] == []


@pytest.mark.parametrize(
    "text",
    [
        "`fl_edge/workers/worker.py: Worker._trains`",
        "`fl_edge/workers/worker.py: Worker._train, _trained_outcome`",
        "`fl_edge/workers/labourer.py: Worker`",
        "`fl_edge/workers/worker.py:main`",
        "`worker.py: main`",
        "`fl_edge/workshop`",
        "`UpdateKept`",
        "`Worker._trains`",
        "```mermaid\nA->>B: UpdateKept\n```",
    ],
)
def test_a_wrong_place_is_found(text: str) -> None:
    right = (
        "`fl_edge/workers/worker.py: Worker._train, main`, `fl_edge/workers`, `fl_edge/workers/worker.py`, "
        "`Worker.run`, `UpdateStored`, `accepted`\n\n```mermaid\nA->>B: UpdateStored\n```\n"
    )
    assert wrong_places(right) == []
    assert len(wrong_places(f"{right}\n{text}\n")) == 1


def test_names_of_threads_are_found() -> None:
    source = (
        'Thread(target=f, name=f"close-{client}")\n'
        'threading.Thread(target=f, name="keeper")\n'
        'ThreadPoolExecutor(1, "sum")\n'
    )
    assert thread_names(source) == {"close-", "keeper", "sum"}
