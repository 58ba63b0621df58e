"""What a command prints with ``--json`` is what ``docs/schema/output`` says (`test_schemas`)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema

SCHEMAS: Final = Path(__file__).parents[2] / "docs" / "schema"


def validator(path: str) -> jsonschema.Draft202012Validator:
    """Returns the validator of a file below ``docs/schema``."""
    return jsonschema.Draft202012Validator(json.loads((SCHEMAS / path).read_text(encoding="utf-8")))


def checked(command: str, printed: str) -> Any:
    """Returns the JSON that ``command`` has printed; fails if its schema does not allow that."""
    found = json.loads(printed)
    _of_output(command).validate(found)
    return found


@cache
def _of_output(command: str) -> jsonschema.Draft202012Validator:
    return validator(f"output/{command.replace(' ', '-')}.json")
