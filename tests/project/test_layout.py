"""Where the code of the tests lies: helpers in ``tests/support`` alone, and no module imports from a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = next(path for path in Path(__file__).parents if path.name == "tests")
SUPPORT = ROOT / "support"
TEST_NAMED = re.compile(r"(?<!def )\b(?:test_|conftest\b)")
"""Without it, a module need not be parsed."""


def misplaced(root: Path) -> list[str]:
    """Modules outside ``support`` that are neither a test nor a ``conftest.py``; an ``__init__.py`` has no code."""
    return [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*.py"))
        if not path.is_relative_to(root / "support")
        and not path.name.startswith("test_")
        and path.name != "conftest.py"
        and not (path.name == "__init__.py" and _is_empty(path))
    ]


def imports_of_tests(path: Path) -> list[str]:
    """The test modules and ``conftest`` modules that a module imports."""
    text = path.read_text(encoding="utf-8")
    if not TEST_NAMED.search(text):
        return []
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if _names_a_test(name)]


def _is_empty(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def _names_a_test(name: str) -> bool:
    return any(level.startswith("test_") or level == "conftest" for level in name.split("."))


def test_helpers_lie_in_support_only() -> None:
    assert misplaced(ROOT) == []


def test_support_has_no_tests() -> None:
    assert [path for path in SUPPORT.rglob("*.py") if path.name.startswith(("test_", "conftest"))] == []


def test_no_module_imports_from_a_test() -> None:
    modules = [*ROOT.rglob("*.py"), *(ROOT.parent / "benchmarks").rglob("*.py")]
    assert len(modules) > 100
    found = {
        str(path.relative_to(ROOT.parent)): names for path in modules if (names := imports_of_tests(path))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "from tests.unit.test_uploads import HEAD",
        "from tests.unit import test_uploads",
        "import tests.unit.test_uploads",
        "from tests.unit.fl_edge.test_pool import helper",
        "from tests.conftest import network",
    ],
)
def test_an_import_from_a_test_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "test_here.py").write_text(line + "\n")
    assert imports_of_tests(tmp_path / "test_here.py") != []


def test_a_helper_elsewhere_is_found(tmp_path: Path) -> None:
    for name, text in {
        "support/client.py": "x = 1\n",
        "unit/test_it.py": "x = 1\n",
        "unit/__init__.py": '"""Nothing."""\n',
        "unit/helper.py": "x = 1\n",
        "faults/__init__.py": "x = 1\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert misplaced(tmp_path) == ["faults/__init__.py", "unit/helper.py"]
