"""The test vectors for edges in other languages (``docs/vectors``) are those of this code.

``UPDATE_GOLDEN=1`` writes them anew.
"""

from __future__ import annotations

import json
import math
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fl_shared.protocol.channels import CHANNELS, kind_of
from tests.support.vectors import messages

VECTORS = Path(__file__).parents[2] / "docs" / "vectors"
NAMES = tuple(path.stem for path in (Path(__file__).parents[1] / "support" / "vectors").glob("[a-z]*.py"))
ROUNDED = 2e-6
"""Numbers that are not integers were rounded to six places, and sums may end in other bits on another processor."""


def differences(found: Any, expected: Any, where: str = "") -> list[str]:
    """The places where two contents differ."""
    match found, expected:
        case dict(), dict() if found.keys() == expected.keys():
            return [one for key in found for one in differences(found[key], expected[key], f"{where}.{key}")]
        case list(), list() if len(found) == len(expected):
            pairs = enumerate(zip(found, expected, strict=True))
            return [one for index, pair in pairs for one in differences(*pair, f"{where}[{index}]")]
        case float(), float() if math.isclose(found, expected, rel_tol=0, abs_tol=ROUNDED):
            return []
        case _:
            return [] if found == expected and type(found) is type(expected) else [where]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_what_the_code_gives(name: str) -> None:
    path = VECTORS / f"{name}.json"
    text = json.dumps(import_module(f"tests.support.vectors.{name}").vectors(), indent=1) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert differences(json.loads(text), json.loads(path.read_text(encoding="utf-8"))) == []


def test_the_readme_names_every_file() -> None:
    readme = (VECTORS / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in VECTORS.glob("*.json")} == set(NAMES)
    assert [name for name in NAMES if f"`{name}.json`" not in readme] == []


def test_every_kind_of_message_is_there() -> None:
    kinds = {one["content"].get("kind") for one in messages.vectors().values()}
    assert kinds == {kind_of(model) for model in CHANNELS.kinds}


@pytest.mark.parametrize(
    "other",
    [{"a": [1, 2.0]}, {"a": [1, 2.00001, 3]}, {"a": [1.0, 2.0, 3]}, {"a": [1, 2.0, 3], "b": None}, {}],
)
def test_a_difference_is_found(other: Any) -> None:
    assert differences({"a": [1, 2.0, 3]}, other)
    assert differences(other, {"a": [1, 2.0, 3]})
